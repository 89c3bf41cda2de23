"""What an asynchronous schedule costs and keeps in the long run, when steps overlap."""

from __future__ import annotations

from planner.schedules.families import build
from planner.schedules.simulate import simulate
from planner.schedules.times import StageTimes
from planner.schedules.versions import weight_versions


def steady_cycle(name: str, *, ranks: int, microbatches: int, times: StageTimes) -> float:
    """Return by how much one more step lengthens a long list of steps."""
    many = _many(ranks, microbatches)
    spans = [
        simulate(build(name, ranks=ranks, microbatches=microbatches, steps=steps), times).makespan
        for steps in (many, many + 1)
    ]
    return spans[1] - spans[0]


def steady_weight_versions(name: str, *, ranks: int, microbatches: int) -> tuple[int, ...]:
    """Return, per rank, the most versions of its weights that are alive at once."""
    many = _many(ranks, microbatches)
    return weight_versions(build(name, ranks=ranks, microbatches=microbatches, steps=many))


def _many(ranks: int, microbatches: int) -> int:
    """Steps after which nothing changes from one to the next."""
    return 2 + -(-2 * ranks // microbatches)
