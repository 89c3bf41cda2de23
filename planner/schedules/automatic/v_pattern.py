"""What the ranks of a V repeat in a steady state without gaps, for any durations.

A microbatch passes each rank four times: F down the V and up, I down and up; each I leaves a W behind. So a
rank repeats six cells, and all ranks repeat them in the same period, the work of the busiest one. In which
order a rank has its six cells, and when, is a puzzle: a pass can start once the pass before it has arrived,
and what lies between is memory.

    rank r       F↓         F↑ I↓         I↑            the offsets of a rank's cells, modulo the period,
    rank r + 1     F↓     F↑     I↓     I↑              against those of the rank before

Going down the ranks, all orders are tried in which one of the four passes waits for nothing, and those few
are kept that hold least so far (a beam search). V-half and V-min of Qi et al. 2024 (arXiv 2405.15362, §3) are
such patterns for F = I = W.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from planner.schedules.times import StageTimes

Floats = NDArray[np.float64]

_PASSES = 4  # F down, F up, I down, I up; then W of the upper stage and of the lower
_ORDERS = np.array(tuple(permutations(range(6))))
_BEAM = 8
_ALIKE = 40  # how many times the beam is looked at for that many different ones
_ROUNDING = 1e-9  # of a period


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """When microbatch 0 starts on every stage; microbatch k follows k periods later.

    `starts` are in the order of a microbatch's passes: forwards of stages 0, 1, …, then input gradients of
    the last stage, the one before, …
    """

    period: float
    starts: tuple[float, ...]


@dataclass(frozen=True)
class _Kept:
    """What the beam holds: one row per partial pattern.

    `cells` are offsets of a rank's six cells, `held` the seconds that a microbatch stays in all passes so
    far, `tilt` by how much more of it the upper stages of this rank hold than rank 0's do, and `most` the
    largest of the ranks' seconds beside `held`. `parent` and `delays` (four passes) lead back to the rank
    before.
    """

    cells: Floats
    held: Floats
    tilt: Floats
    most: Floats
    parent: NDArray[np.int64]
    delays: Floats


@lru_cache(maxsize=8)  # looked at again with other slack
def find_pattern(times: StageTimes, ranks: int, *, slack: float = 0.0) -> Pattern | None:
    """Return a pattern for two stages per rank that holds little, each pass at least `slack` seconds late.

    None where nothing takes any time.
    """
    period = max(map(sum, (_durations(times, rank) for rank in range(ranks))))
    if period <= 0:
        return None
    kept = [_first_rank(times, period)]
    for rank in range(1, ranks):
        kept.append(_next_rank(times, rank, kept[-1], period, slack))
    return _traced(times, kept, period)


def _durations(times: StageTimes, rank: int) -> tuple[float, ...]:
    """Return the seconds of a rank's six cells."""
    upper = times.stages - 1 - rank
    forward, inputs, weights = times.forward, times.input_gradient, times.weight_gradient
    return forward[rank], forward[upper], inputs[upper], inputs[rank], weights[upper], weights[rank]


def _tables(seconds: tuple[float, ...], period: float) -> Floats:
    """Return the offsets of six cells that follow each other, in every order: (orders, 6)."""
    lasting = np.array(seconds)[_ORDERS]
    offsets: Floats = np.empty_like(lasting)
    np.put_along_axis(offsets, _ORDERS, np.cumsum(lasting, axis=1) - lasting, axis=1)
    if sum(seconds) >= period * (1 - _ROUNDING):
        offsets = offsets[_ORDERS[:, 0] == 0]  # without a pause, where the period begins makes no difference
    return offsets


def _later(offset: Floats, than: Floats | float, period: float) -> Floats:
    """Return by how many seconds `offset` comes after `than`, going round the period."""
    after: Floats = np.mod(offset - than + _ROUNDING * period, period) - _ROUNDING * period
    after[after < 0] = 0.0
    return after


def _weights_held(cells: Floats, seconds: tuple[float, ...], period: float) -> Floats:
    """Return how long the activations of both stages are held after the start of I, until the end of W."""
    held = np.zeros(cells.shape[0])
    for gradient, weight in ((2, 4), (3, 5)):
        began = cells[:, gradient] + seconds[gradient]
        held += seconds[gradient] + _later(cells[:, weight], began, period) + seconds[weight]
    return held


def _first_rank(times: StageTimes, period: float) -> _Kept:
    """Start the beam at rank 0, where the V ends and the gradients begin: both stages are held meanwhile."""
    seconds = _durations(times, 0)
    cells = _tables(seconds, period)
    turn = seconds[1] + _later(cells[:, 2], cells[:, 1] + seconds[1], period)
    most = _weights_held(cells, seconds, period)
    best = np.argsort(2 * turn + most, kind="stable")[:_BEAM]
    none = np.zeros(len(best))
    return _Kept(
        cells=cells[best],
        held=2 * turn[best],
        tilt=none,
        most=most[best],
        parent=np.zeros(len(best), dtype=np.int64),
        delays=np.zeros((len(best), _PASSES)),
    )


def _hops(times: StageTimes, rank: int, slack: float) -> tuple[float, ...]:
    """Return the least seconds from the start of each pass on one rank to that on the next, r − 1 ↔ r."""
    upper = times.stages - 1 - rank
    before, after = _durations(times, rank - 1), _durations(times, rank)
    down, up = times.latency + times.wire[rank - 1] + slack, times.latency + times.wire[upper] + slack
    return before[0] + down, after[1] + up, before[2] + up, after[3] + down


def _next_rank(times: StageTimes, rank: int, before: _Kept, period: float, slack: float) -> _Kept:
    """Extend every kept pattern by one rank in every way, and keep the best: axes (kept, order, phase)."""
    seconds, hops = _durations(times, rank), _hops(times, rank, slack)
    tables = _tables(seconds, period)
    known = [before.cells[:, cell, None, None] for cell in range(_PASSES)]
    given = [tables[None, :, cell, None] for cell in range(_PASSES)]
    # Down the V a pass comes from the rank before, up the V it goes there; in each phase one does not wait.
    signs = (1, -1, 1, -1)
    phases = np.concatenate(
        [known[cell] + signs[cell] * hops[cell] - given[cell] for cell in range(_PASSES)], axis=2
    )
    delays = [
        hops[cell] + _later(signs[cell] * (given[cell] + phases - known[cell]), hops[cell], period)
        for cell in range(_PASSES)
    ]
    held = before.held[:, None, None] + sum(delays)
    tilt = before.tilt[:, None, None] + (delays[1] + delays[2]) - (delays[0] + delays[3])
    most = np.maximum(
        before.most[:, None, None], tilt + _weights_held(tables, seconds, period)[None, :, None]
    )
    best = _least((held + most).ravel(), _BEAM * _ALIKE)
    parent, order, phase = np.unravel_index(best, held.shape)
    cells = np.mod(tables[order] + phases[parent, order, phase][:, None], period)
    rows = _different(cells, period)
    at = parent[rows], order[rows], phase[rows]
    return _Kept(
        cells=cells[rows],
        held=held[at],
        tilt=tilt[at],
        most=most[at],
        parent=parent[rows],
        delays=np.stack([delay[at] for delay in delays], axis=1),
    )


def _least(values: Floats, count: int) -> NDArray[np.int64]:
    """Return where the `count` least values are, in their order."""
    few = np.argpartition(values, min(count, len(values)) - 1)[:count]
    return few[np.lexsort((few, values[few]))]


def _different(cells: Floats, period: float) -> list[int]:
    """Return the first rows, a beam of them, whose passes lie differently to each other."""
    apart = np.mod(np.round((cells[:, 1:_PASSES] - cells[:, :1]) / period, 6), 1.0)
    rows: dict[tuple[float, ...], int] = {}
    for row, key in enumerate(map(tuple, apart.tolist())):
        rows.setdefault(key, row)
        if len(rows) == _BEAM:
            break
    return list(rows.values())


def _traced(times: StageTimes, kept: list[_Kept], period: float) -> Pattern:
    """Return the pattern that holds least, by its delays along a microbatch's way."""
    last, ranks = kept[-1], len(kept)
    seconds = _durations(times, ranks - 1)
    turns = [
        seconds[cell] + _later(last.cells[:, cell + 1], last.cells[:, cell] + seconds[cell], period)
        for cell in (0, 2)
    ]
    row = int(np.argmin(last.held + last.most + turns[0] + turns[1]))
    bottoms = [float(turn[row]) for turn in turns]
    hops: list[list[float]] = []
    for each in reversed(kept[1:]):
        hops.append(each.delays[row].tolist())
        row = int(each.parent[row])
    hops.reverse()
    first, cells = _durations(times, 0), kept[0].cells[row : row + 1]
    top = first[1] + float(_later(cells[:, 2], cells[:, 1] + first[1], period)[0])
    delays = [hop[0] for hop in hops] + bottoms[:1] + [hop[1] for hop in reversed(hops)] + [top]
    delays += [hop[2] for hop in hops] + bottoms[1:] + [hop[3] for hop in reversed(hops)]
    return Pattern(period=period, starts=tuple(np.cumsum([0.0, *delays]).tolist()))
