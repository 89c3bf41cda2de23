"""What a step of an asynchronous schedule costs in the long run, when steps overlap."""

from __future__ import annotations

from planner.schedules.families import build
from planner.schedules.simulate import simulate
from planner.schedules.times import StageTimes


def steady_cycle(name: str, *, ranks: int, microbatches: int, times: StageTimes) -> float:
    """Return by how much one more step lengthens a long list of steps."""
    many = 2 + -(-2 * ranks // microbatches)
    spans = [
        simulate(build(name, ranks=ranks, microbatches=microbatches, steps=steps), times).makespan
        for steps in (many, many + 1)
    ]
    return spans[1] - spans[0]
