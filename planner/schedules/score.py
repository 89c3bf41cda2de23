"""What `auto` minimises."""

from __future__ import annotations

from planner.schedules.timeline import Timeline

Score = tuple[float, float, float]


def score_of(timeline: Timeline) -> Score:
    """Return what is minimised: the cycle, then all spans together, then the makespan (rounding aside)."""
    return round(timeline.cycle, 9), round(sum(timeline.spans), 9), round(timeline.makespan, 9)
