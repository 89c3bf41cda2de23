"""Naive model parallelism: one microbatch at a time, forward through all ranks and back.

rank 0  F0 .  .  B0 F1 .  .  B1         (p = 2, m = 2)
rank 1  .  F0 B0 .  .  F1 B1 .
"""

from __future__ import annotations

from planner.schedules.action import Action, Kind, Schedule, loop_placement
from planner.schedules.family import Family


def naive(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return the schedule that never has two microbatches in flight."""
    actions = tuple(
        tuple(
            Action(kind, rank, microbatch) for microbatch in range(microbatches) for kind in (Kind.F, Kind.B)
        )
        for rank in range(ranks)
    )
    return Schedule(
        name="naive", microbatches=microbatches, placement=loop_placement(ranks, chunks), actions=actions
    )


NAIVE = Family(
    name="naive",
    summary="one microbatch at a time through all ranks",
    source="plain model parallelism",
    build=naive,
)
