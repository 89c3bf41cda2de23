"""1F1B (PipeDream-Flush): after a warm-up, each rank alternates one forward and one backward.

    rank 0  F0 F1 .  B0 F2 B1 F3 B2 .  B3       (p = 2, m = 4)
    rank 1  .  F0 B0 F1 B1 F2 B2 F3 B3

Rank r runs p − 1 − r forwards before its first pair, and so never holds more than p − r microbatches.
"""

from __future__ import annotations

from itertools import chain

from planner.schedules.action import Action, Kind, Schedule, cells, loop_placement
from planner.schedules.family import Family


def one_f_one_b(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return the 1F1B schedule for one stage per rank (`chunks` is 1); any number of microbatches."""
    return Schedule(
        name="1f1b",
        microbatches=microbatches,
        placement=loop_placement(ranks, chunks),
        actions=tuple(_rank(rank, ranks, microbatches) for rank in range(ranks)),
    )


def _rank(rank: int, ranks: int, microbatches: int) -> tuple[Action, ...]:
    warmup = min(ranks - 1 - rank, microbatches)
    forwards, backwards = (cells(kind, rank, range(microbatches)) for kind in (Kind.F, Kind.B))
    pairs = chain.from_iterable(zip(forwards[warmup:], backwards, strict=False))
    return (*forwards[:warmup], *pairs, *backwards[microbatches - warmup :])


ONE_F_ONE_B = Family(
    name="1f1b",
    summary="one forward, one backward in turn, with a flush at the end of the step",
    source="Narayanan et al. 2021, arXiv 2104.04473 (PipeDream-Flush)",
    build=one_f_one_b,
    settled=1,
)
