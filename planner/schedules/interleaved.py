"""Interleaved 1F1B: 1F1B over v stages per rank, which divides the bubble by v.

Microbatches go in groups of about p. A rank takes a whole group through one of its stages, then through the
next:

    forwards    group 0: stages r, r + p, r + 2p … · group 1: stages r, …
    backwards   the same groups, the stages from the last

After 2(p − 1 − r) + (v − 1) · g forwards, g the largest group, forwards and backwards alternate. Published
for m a multiple of p (all groups have p). Here any m works: the m mod p left over are spread over the groups.
"""

from __future__ import annotations

import itertools

from planner.schedules.action import Action, Kind, Schedule, cells, loop_placement
from planner.schedules.family import Family


def interleaved(ranks: int, microbatches: int, chunks: int) -> Schedule:
    """Return the interleaved 1F1B schedule; with one chunk it is 1F1B itself."""
    groups = _groups(ranks, microbatches)
    return Schedule(
        name="interleaved-1f1b",
        microbatches=microbatches,
        placement=loop_placement(ranks, chunks),
        actions=tuple(_rank(rank, ranks, chunks, groups) for rank in range(ranks)),
    )


def _groups(ranks: int, microbatches: int) -> list[range]:
    """Split the microbatches into max(1, m // p) consecutive groups, larger ones first."""
    count = max(1, microbatches // ranks)
    size, larger = divmod(microbatches, count)
    starts = [group * size + min(group, larger) for group in range(count + 1)]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def _rank(rank: int, ranks: int, chunks: int, groups: list[range]) -> tuple[Action, ...]:
    stages = range(rank, ranks * chunks, ranks)
    forwards, backwards = (
        [cell for group in groups for stage in order for cell in cells(kind, stage, group)]
        for kind, order in ((Kind.F, stages), (Kind.B, stages[::-1]))
    )
    hops = ranks - 1 - rank
    warmup = hops if chunks == 1 else 2 * hops + (chunks - 1) * len(groups[0])
    paired = forwards[warmup:]
    pairs = itertools.chain.from_iterable(zip(paired, backwards, strict=False))
    return (*forwards[:warmup], *pairs, *backwards[len(paired) :])


INTERLEAVED = Family(
    name="interleaved-1f1b",
    summary="1F1B over several stages per rank",
    source="Narayanan et al. 2021, arXiv 2104.04473, §2.2",
    build=interleaved,
    chunks=2,
    chunked=True,
    settled=3,
)
