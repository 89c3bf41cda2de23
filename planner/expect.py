"""What a schedule is expected to take, in closed form: the order in which layouts are worth simulating.

Unlike the bounds these are not proved; they only decide what is priced first. Each form is a longest path
through the cells of equal stages, read off simulated timelines: what the slowest rank works, and a ramp of
cells that lie before its first, after its last, or between the two. Which path is longest depends on how F, I
and W compare, so a ramp is the maximum of several.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner.columns import LayerTimes, Seconds
from planner.loads import Loads
from planner.skeletons import Column

UNEVEN = 0.5  # blocks a microbatch that chunks of different sizes cost, about
INTERLOCKED = 4  # ranks of a V from which on the blocks of V-half and V-min hold each other up


class _Cells(NamedTuple):
    """Seconds of one microbatch on an average rank without ends: forward, input and weight gradient."""

    forward: Seconds
    gradient: Seconds
    weight: Seconds

    @property
    def all(self) -> Seconds:
        return self.forward + self.gradient + self.weight


def pipeline_expectation(
    name: str,
    *,
    pp: Column,
    chunks: Column,
    microbatches: Column,
    times: LayerTimes,
    load: Loads,
) -> Seconds:
    """Return the seconds that a pipeline is expected to take."""
    m, p, block = microbatches, pp, times.block
    weight = np.minimum(block.weight_gradient, block.backward)
    mean = load.layers / p
    cells = _Cells(mean * block.forward, mean * (block.backward - weight), mean * weight)
    between = m * load.most * block.both
    steady = np.maximum(m * load.slowest, between + m * _pause(name, p) * times.hop)
    if name in {"zb-v", "dualpipe-v", "v-half", "v-min"}:
        seconds = _folded(name, p, m, cells, steady=steady, times=times, load=load)
    elif name in {"1f1b", "gpipe"}:
        seconds = np.asarray(steady + load.total - load.slowest)
    elif name in {"zb-h1", "zb-h2"}:
        seconds = np.maximum(steady + (p - 1) * cells.forward, between + _split_ramp(name, p, m, cells))
    else:
        # Ranks with different numbers of layers have their larger stages at different places of a round.
        whole = (load.base % chunks == 0) & (load.most % chunks == 0)
        uneven = (load.most * p != load.layers) & ~whole
        seconds = np.asarray(steady + (p - 1) * cells.all / chunks + uneven * m * UNEVEN * block.both)
    seconds = seconds + _ramp_hops(name, p, chunks) * times.hop
    return np.asarray(np.where(p > 1, seconds, m * load.total))


def _split_ramp(name: str, p: Column, m: Column, cells: _Cells) -> Seconds:
    """What ZB-H1 and ZB-H2 take beyond the work of a rank between the ends, if that is the slowest."""
    forward, gradient, weight = cells
    trip = (p - 1) * (forward + gradient)
    if name == "zb-h1":
        return np.maximum((p - 1) * (forward + gradient - weight), trip - (m - 1) * weight)
    return np.maximum((p - 1) * np.maximum(forward, gradient - weight), trip - (m - 1) * weight / 2)


def _folded(
    name: str, p: Column, m: Column, cells: _Cells, *, steady: Seconds, times: LayerTimes, load: Loads
) -> Seconds:
    """Seconds of a V, where the first rank holds both ends of the model or a rank between them is slowest."""
    forward, gradient, weight = cells
    if name in {"v-half", "v-min"}:
        # They go at the pace of the larger of a rank's two stages.
        larger = -(-load.most // 2) * 2 / np.maximum(1e-9, load.layers / p)
        cells = _Cells(larger * forward, larger * gradient, larger * weight)
        block, ramp = _blocks(name, cells)
        few_ranks = cells.all if name == "v-half" else (cells.all + block) / 2
        block = np.where(p >= INTERLOCKED, block, few_ranks)
        paused = m * (block + _pause(name, p) * times.hop)
        return np.asarray(np.maximum(steady, paused) + (p - 1) * ramp)
    few = (p - 1) * (forward + gradient) - (m - 1) * forward
    if name == "zb-v":
        paths = (2 * forward - gradient, gradient, weight, 2 * (gradient - weight))
    else:
        few = few + (p - 1) * weight / 2
        paths = (forward, gradient, forward + gradient - weight, 2 * gradient - weight)
    ramp = np.maximum((p - 1) * np.maximum.reduce(paths) / 2, few)
    ends = steady + np.maximum(0.0, _after_first_rank(name, p, times, load))
    return np.asarray(np.maximum(m * load.most * times.block.both + ramp, ends))


def _after_first_rank(name: str, p: Column, times: LayerTimes, load: Loads) -> Seconds:
    """How much longer a V takes than its first rank, when that is the slowest and never waits.

    The last input gradient goes from the first rank, up the V, to the one at the turn, which has weight
    gradients left; meanwhile the first rank drains. Of an odd number of layers a rank's first stage has more.
    """
    block = times.block
    gradient = block.backward - np.minimum(block.weight_gradient, block.backward)
    weight = np.minimum(block.weight_gradient, block.backward)
    down, up = -(-load.base // 2), load.base // 2
    own_down, own_up = -(-load.first_layers // 2), load.first_layers // 2
    drained = p * own_down * (gradient + weight)
    if name == "zb-v":
        drained = drained + own_up * weight
        turn = (p - 1) * up * gradient + down * (gradient + weight) + (p - 1) * (down + up) * weight
        return np.asarray(turn - drained)
    turn = (p - 1) * (up + down) * gradient + down * gradient - p * own_down * gradient
    uneven = (p - 1) * (down - up) * block.both / 3
    return np.asarray(np.maximum(turn - (p - 1) * own_down * weight, uneven))


def _blocks(name: str, cells: _Cells) -> tuple[Seconds, Seconds]:
    """Seconds of V-half and V-min for every microbatch, and for every further rank.

    Neighbours pass three cells around each microbatch, or each two, that have to follow each other.
    """
    forward, gradient, weight = cells
    if name == "v-half":
        pair = 1.5 * np.maximum.reduce([forward + gradient, gradient + weight, forward + weight])
        return np.maximum(cells.all, pair), 1.36 * pair / 3
    triple = 3 * np.maximum.reduce([forward, gradient, weight])
    return np.maximum(cells.all, triple), 1.93 * triple / 3


def _pause(name: str, p: Column) -> Seconds:
    """Hops that every microbatch waits for, where neighbours hand over to each other all the time."""
    if name == "1f1b":
        return np.asarray(2 * (p - 1) / p)
    if name == "v-half":
        return np.full(np.shape(p), 2.0)
    return np.asarray(6.0 * (p - 1) / p * (name == "v-min"))


def _ramp_hops(name: str, p: Column, chunks: Column) -> Seconds:
    """Hops on the way of the first and the last microbatches."""
    if name in {"interleaved-1f1b", "looped-bfs"}:
        return np.asarray(2.0 * (p * chunks - 1))
    return np.asarray(
        {"zb-h1": 4, "zb-v": 5, "dualpipe-v": 5.5, "v-half": 4.5, "v-min": 2.5}.get(name, 2) * (p - 1.0)
    )
