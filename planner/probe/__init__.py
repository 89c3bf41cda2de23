"""Probe: what the hardware is, each fact with its origin."""

from planner.probe.machine import probe

__all__ = ["probe"]
