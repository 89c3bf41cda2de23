"""The schedule that is searched for: published families refilled, patterns for a V, generated orders."""

from planner.schedules.automatic.auto import auto, auto_by_name, auto_timeline
from planner.schedules.automatic.problem import Problem

__all__ = ["Problem", "auto", "auto_by_name", "auto_timeline"]
