"""ZB-H1 and ZB-H2: weight gradients wait, and fill the bubbles that the chain of input gradients leaves.

A rank lists, with warm-up a and delay d,

    F × a │ (F I) × d │ (F I W) × … │ (I W) × a │ W × d             every W is the oldest one waiting

and holds at most a + d + 1 microbatches. With a = p − 1 − r:
- ZB-H1, d = r: the memory of 1F1B's first rank (p) on every rank, bubble (p − 1)(F + I − W);
- ZB-H2, both doubled: peak 2p − 1; no rank waits between its first and last action (F = I = W, m ≥ 2p − 1).
"""

from __future__ import annotations

from planner.schedules.action import Action, Kind, Schedule, cells, loop_placement
from planner.schedules.family import Family


def zb_h1(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return ZB-H1 for one stage per rank; any number of microbatches."""
    return _zero_bubble("zb-h1", ranks, microbatches, factor=1)


def zb_h2(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return ZB-H2 for one stage per rank; with fewer than 2p − 1 microbatches some bubble remains."""
    return _zero_bubble("zb-h2", ranks, microbatches, factor=2)


def _zero_bubble(name: str, ranks: int, microbatches: int, *, factor: int) -> Schedule:
    return Schedule(
        name=name,
        microbatches=microbatches,
        placement=loop_placement(ranks),
        actions=tuple(
            _rank(rank, microbatches, warmup=factor * (ranks - 1 - rank), delay=factor * rank)
            for rank in range(ranks)
        ),
    )


def _rank(rank: int, microbatches: int, *, warmup: int, delay: int) -> tuple[Action, ...]:
    """List one rank's cells; `rank` is also its stage."""
    warmup = min(warmup, microbatches)
    forwards, inputs, weights = (cells(kind, rank, range(microbatches)) for kind in (Kind.F, Kind.I, Kind.W))
    later = forwards[warmup:]
    actions = forwards[:warmup]
    for microbatch, cell in enumerate(inputs):
        actions += later[microbatch : microbatch + 1]
        actions.append(cell)
        if microbatch >= delay:
            actions.append(weights[microbatch - delay])
    actions += weights[max(0, microbatches - delay) :]
    return tuple(actions)


ZB_H1 = Family(
    name="zb-h1",
    summary="split backward, a third of 1F1B's bubble at its memory",
    source="Qi et al. 2023, arXiv 2401.10241, §2",
    build=zb_h1,
    split=True,
    seamless=True,
)

ZB_H2 = Family(
    name="zb-h2",
    summary="split backward, no bubble within a rank's span at twice 1F1B's memory",
    source="Qi et al. 2023, arXiv 2401.10241, §2",
    build=zb_h2,
    split=True,
    settled=3,
    seamless=True,
)
