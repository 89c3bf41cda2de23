"""GPipe: all forwards, then all backwards.

    rank 0  F0 F1 F2 F3 .  .  .  .  .  B3 B2 B1 B0      (drawn for p = 2, m = 4)
    rank 1  .  F0 F1 F2 F3 B3 ...

Backwards run in the order of the forwards reversed or kept; kept (0, 1, …) here, so that every rank frees
activations in the order in which it made them and sums gradients in the order of the microbatches.
"""

from __future__ import annotations

from planner.schedules.action import Kind, Schedule, cells, loop_placement
from planner.schedules.family import Family


def gpipe(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return GPipe's schedule for one stage per rank (`chunks` is 1)."""
    row = range(microbatches)
    actions = tuple((*cells(Kind.F, rank, row), *cells(Kind.B, rank, row)) for rank in range(ranks))
    return Schedule(
        name="gpipe", microbatches=microbatches, placement=loop_placement(ranks, chunks), actions=actions
    )


GPIPE = Family(
    name="gpipe",
    summary="all forwards, then all backwards",
    source="Huang et al. 2019, arXiv 1811.06965",
    build=gpipe,
)
