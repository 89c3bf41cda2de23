"""DualPipe-V: DeepSeek's DualPipe cut in half, so that each rank holds two stages of a V and one copy of
them.

In the middle of the step a rank pairs the forward of one microbatch with the backward of another (B, whole),
so that the communication of each hides behind the computation of the other. Cells of stage r, down the V, are
small letters, those of stage 2p − 1 − r, up the V, capitals; a pair is two neighbours `fB` or `Fb`:

    f × 2(p − r − 1) │ (f F) × (r + 1) │ (I w F) × (p − r − 1) │ (fB Fb) × (m − 2p + r + 1) │ (B Fb) × (p − r
    − 1) │ (B b) × (r + 1), split into (I i) from the middle on │ (w i) × (p − r − 1) │ w × (r + 1)

Every w is the oldest weight gradient waiting, of either stage. Published for m ≥ 2p; with fewer microbatches,
the cells of those that do not exist are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from planner.schedules.action import Action, Kind, Schedule, cells, v_placement
from planner.schedules.family import Family

_SPLIT = str.maketrans("Bb", "Ii")


def dualpipe_v(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Return DualPipe-V for two stages per rank; any number of microbatches."""
    full = max(microbatches, 2 * ranks)
    actions = []
    for rank in range(ranks):
        row = _number(rank, ranks, _letters(rank, ranks, full))
        if full > microbatches:
            row = tuple(action for action in row if action.microbatch < microbatches)
        actions.append(row)
    return Schedule(
        name="dualpipe-v", microbatches=microbatches, placement=v_placement(ranks), actions=tuple(actions)
    )


def _letters(rank: int, ranks: int, microbatches: int) -> str:
    """The rank's cells; `w` stands for the oldest weight gradient waiting."""
    hops = ranks - 1 - rank
    drain = "Bb" * (rank + 1)
    whole = 2 * ((rank + 1) // 2) + (rank % 2 == 0)  # from the middle on, backwards are split
    return (
        "f" * (2 * hops)
        + "fF" * (rank + 1)
        + "IwF" * hops
        + "fBFb" * (microbatches - 2 * ranks + rank + 1)
        + "BFb" * hops
        + drain[:whole]
        + drain[whole:].translate(_SPLIT)
        + "wi" * hops
        + "w" * (rank + 1)
    )


def _number(rank: int, ranks: int, letters: str) -> tuple[Action, ...]:
    """Turn letters into cells, each with the next microbatch of its stage and sweep."""
    streams: dict[str, Iterator[Action]] = {}
    weights: dict[str, Iterator[Action]] = {}
    for stage, forward, whole, split in ((rank, "f", "b", "i"), (2 * ranks - 1 - rank, "F", "B", "I")):
        streams[forward] = iter(cells(Kind.F, stage, range(letters.count(forward))))
        # Backwards of a stage share one numbering, whether whole or split.
        order = [letter for letter in letters if letter in {whole, split}]
        numbers = {letter: [i for i, each in enumerate(order) if each == letter] for letter in (whole, split)}
        streams[whole] = iter(cells(Kind.B, stage, numbers[whole]))
        streams[split] = iter(cells(Kind.I, stage, numbers[split]))
        weights[split] = iter(cells(Kind.W, stage, numbers[split]))
    streams["w"] = (next(weights[letter]) for letter in letters if letter in weights)
    return tuple(map(next, map(streams.__getitem__, letters)))


DUALPIPE_V = Family(
    name="dualpipe-v",
    summary="forwards and backwards of different microbatches paired, on a V",
    source="DeepSeek-AI 2025, arXiv 2412.19437 (DualPipe), DualPipeV",
    build=dualpipe_v,
    placement="v",
    chunks=2,
    split=True,
    settled=3,
    seamless=True,
)
