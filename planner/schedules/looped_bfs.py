"""Looped breadth-first: all microbatches through a rank's first stage, then its next, and back likewise.

    rank 0  F(0, all)  F(p, all) …  B(p, all)  B(0, all)

GPipe's memory at 1/v of its bubble; each stage's gradients are complete after one run of backwards, so
data-parallel reduction overlaps best.
"""

from __future__ import annotations

from itertools import chain

from planner.schedules.action import Kind, Schedule, cells, loop_placement
from planner.schedules.family import Family


def looped_bfs(ranks: int, microbatches: int, chunks: int) -> Schedule:
    """Return the breadth-first schedule; with one chunk it is GPipe."""
    actions = []
    for rank in range(ranks):
        stages = range(rank, ranks * chunks, ranks)
        forwards = [cells(Kind.F, stage, range(microbatches)) for stage in stages]
        backwards = [cells(Kind.B, stage, range(microbatches)) for stage in reversed(stages)]
        actions.append(tuple(chain(*forwards, *backwards)))
    return Schedule(
        name="looped-bfs",
        microbatches=microbatches,
        placement=loop_placement(ranks, chunks),
        actions=tuple(actions),
    )


LOOPED_BFS = Family(
    name="looped-bfs",
    summary="all microbatches through one stage of a rank after the other",
    source="Lamy-Poirier 2022, arXiv 2211.05953",
    build=looped_bfs,
    chunks=2,
    chunked=True,
)
