"""What `auto` minimises."""

from __future__ import annotations

from planner.schedules.timeline import Timeline

Score = tuple[float, float, float]


def score_of(timeline: Timeline) -> Score:
    """Return what is minimised: the cycle, then all spans together, then the makespan (rounding aside)."""
    return rounded(timeline.cycle), rounded(sum(timeline.spans)), rounded(timeline.makespan)


def rounded(seconds: float) -> float:
    """Return 12 significant digits, so that rounding decides nothing, whatever the unit of time."""
    return float(f"{seconds:.12g}")
