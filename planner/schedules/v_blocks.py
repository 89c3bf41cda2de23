"""V-half and V-min: less activation memory than 1F1B, by how long each microbatch stays.

Each rank holds stage r on the way down the V and stage 2p − 1 − r on the way up, so the first rank also holds
the last stage, and the memory of all ranks is alike. Every microbatch repeats the same block of passes, six
units (two F, two I, two W) after the one before. What a rank holds is how long its passes last, divided by
six:

    rank 0     F ─┐                 ┌─ F I ─┐                 ┌─ I
    rank 1       F ─┐             ┌─ F   I ─┐             ┌─ I          (delays of 1 per hop: V-min)
    rank p−1         F ─ F                   I ─ I

With delays d1 … d4 per hop of the four sweeps the passes last p(d1 + d2 + d3 + d4) units on the first rank:
V-min takes 1, 1, 1, 1 (a third of 1F1B's memory), V-half 2, 1, 2, 1 (half). No two passes of a rank may fall
on the same unit modulo six; where they would, the turns of the V are stretched by `turns`.

Weight gradients are then filled into the gaps within the memory limit. For F = I = W and m ≥ 2p:

    v-half   peak ⌊p/2⌋ + 1       bubble (3p − 5)/2 for even p > 2, (3p − 4)/2 for odd: 1F1B's is 3(p − 1)
    v-min    peak ⌊(p + 4)/3⌋     bubble (4p − 5)/2
"""

from __future__ import annotations

from planner.schedules.action import Action, Kind, Schedule, new_action, v_placement
from planner.schedules.family import Family
from planner.schedules.fill import fill_weights
from planner.schedules.times import StageTimes

_BLOCK = 6  # units per microbatch and rank: F, I and W of two stages


def v_half(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Return V-half for two stages per rank; any number of microbatches."""
    turns = (0, 0, 0) if ranks % 2 else (2, 0, 2)
    return _v_schedule("v-half", ranks, microbatches, (2, 1, 2, 1), turns, limit=2 * (ranks // 2 + 1))


def v_min(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Return V-min for two stages per rank; any number of microbatches."""
    turns = (0, 0, 0) if ranks % 3 else (1, 0, 2)
    return _v_schedule("v-min", ranks, microbatches, (1, 1, 1, 1), turns, limit=2 * ((ranks + 4) // 3))


def _v_schedule(
    name: str,
    ranks: int,
    microbatches: int,
    delays: tuple[int, int, int, int],
    turns: tuple[int, int, int],
    *,
    limit: int,
) -> Schedule:
    orders = []
    for rank in range(ranks):
        passes = _passes(rank, ranks, delays, turns)
        timed = sorted(
            (start + _BLOCK * microbatch, sweep, microbatch)
            for sweep, start in enumerate(passes)
            for microbatch in range(microbatches)
        )
        cells = _sweeps(rank, ranks)
        orders.append([new_action(Action, (*cells[sweep], microbatch)) for _, sweep, microbatch in timed])
    schedule = fill_weights(
        orders,
        name=name,
        microbatches=microbatches,
        placement=v_placement(ranks),
        times=StageTimes.uniform(stages=2 * ranks),
        limits=(limit,) * ranks,
    )
    assert schedule is not None  # nothing was asked of its span
    return schedule


def _sweeps(rank: int, ranks: int) -> tuple[tuple[Kind, int], ...]:
    """Kind and stage of the rank's pass in each of the four sweeps along the V."""
    down, up = rank, 2 * ranks - 1 - rank
    return (Kind.F, down), (Kind.F, up), (Kind.I, up), (Kind.I, down)


def _passes(
    rank: int, ranks: int, delays: tuple[int, int, int, int], turns: tuple[int, int, int]
) -> tuple[int, ...]:
    """When the rank's four passes of microbatch 0 start: down, up, back down, back up."""
    hops = ranks - 1
    starts, begin = [], 0
    for sweep, delay in enumerate(delays):
        away = rank if sweep in (0, 2) else hops - rank
        starts.append(begin + away * delay)
        begin += hops * delay + 1 + (turns[sweep] if sweep < 3 else 0)
    return tuple(starts)


V_HALF = Family(
    name="v-half",
    summary="split backward on a V, half of 1F1B's memory and bubble",
    source="Qi et al. 2024, arXiv 2405.15362",
    build=v_half,
    placement="v",
    chunks=2,
    split=True,
    settled=4,
)

V_MIN = Family(
    name="v-min",
    summary="split backward on a V, a third of 1F1B's memory",
    source="Qi et al. 2024, arXiv 2405.15362",
    build=v_min,
    placement="v",
    chunks=2,
    split=True,
    settled=4,
)
