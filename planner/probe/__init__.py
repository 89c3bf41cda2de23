"""Probe: what the hardware is, each fact with its origin."""

from planner.probe.compare import difference, odd_nodes
from planner.probe.machine import Sources, live_sources, probe
from planner.probe.merge import merge_nodes
from planner.probe.sentence import describe_cluster
from planner.probe.snapshot import Snapshot, record_probe, replay

__all__ = [
    "Snapshot",
    "Sources",
    "describe_cluster",
    "difference",
    "live_sources",
    "merge_nodes",
    "odd_nodes",
    "probe",
    "record_probe",
    "replay",
]
