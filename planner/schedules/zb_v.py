"""ZB-V: zero bubble at 1F1B's memory, on a V of two stages per rank.

Rank r holds stage r, down the V (cells f, i, w below), and stage 2p − 1 − r, up the V (F, I, W):

    f × 2(p − r) − 1 │ (F f) × r │ (F I W) × (p − r) │ (f i w F I W) × … │ (i w F I W) × (p − r − 1)
    │ (i I) × r │ (i w) × (p − r) │ W × r │ w × r

The warm-up fills 2p activations, of two per microbatch: the memory of p microbatches. From then on each rank
runs one of each cell per microbatch without waiting (F = I = W, m ≥ 2p − 1). With fewer microbatches, the
cells of those that do not exist are left out.
"""

from __future__ import annotations

from planner.schedules.action import Action, Kind, Schedule, cells, v_placement
from planner.schedules.family import Family


def zb_v(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Return ZB-V for two stages per rank; any number of microbatches."""
    full = max(microbatches, 2 * ranks - 1)
    return Schedule(
        name="zb-v",
        microbatches=microbatches,
        placement=v_placement(ranks),
        actions=tuple(_rank(rank, ranks, microbatches, _letters(rank, ranks, full)) for rank in range(ranks)),
    )


def _letters(rank: int, ranks: int, microbatches: int) -> str:
    """The rank's cells: small letters for its stage down the V, capitals for the one up."""
    up = ranks - rank
    return (
        "f" * (2 * up - 1)
        + "Ff" * rank
        + "FIW" * up
        + "fiwFIW" * (microbatches - 2 * ranks + rank + 1)
        + "iwFIW" * (up - 1)
        + "iI" * rank
        + "iw" * up
        + "W" * rank
        + "w" * rank
    )


def _rank(rank: int, ranks: int, microbatches: int, letters: str) -> tuple[Action, ...]:
    """Number the cells of each letter by microbatch and leave out those beyond the last."""
    streams = {}
    for letter in "fiwFIW":
        stage = rank if letter.islower() else 2 * ranks - 1 - rank
        streams[letter] = iter(cells(Kind[letter.upper()], stage, range(letters.count(letter))))
    row = tuple(map(next, map(streams.__getitem__, letters)))
    if len(row) == 6 * microbatches:
        return row
    return tuple(cell for cell in row if cell.microbatch < microbatches)


ZB_V = Family(
    name="zb-v",
    summary="split backward on a V, no bubble within a rank's span at 1F1B's memory",
    source="Qi et al. 2023, arXiv 2401.10241, §6; Qi et al. 2024, arXiv 2405.15362",
    build=zb_v,
    placement="v",
    chunks=2,
    split=True,
    seamless=True,
)
