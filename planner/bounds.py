"""Lower bounds of step time and memory, in closed form and for many layouts at once.

Every bound is at most what `planner.costs.price` returns for the layout with the layers that
`planner.search` gives its stages, so a search in the order of the bounds finds the true optimum.

For rank r with T_r seconds of work a microbatch, of which F_r forward, Σ over the other ranks:

    any order       m·T_r + what lies before r's first action (F of earlier stages) and after its last
    gpipe           m·T_r + Σ T_j       r waits for the last forward's round trip before its first backward
    1f1b            m·T_r + Σ_{j<r} T_j + 2·Σ_{j>r} T_j − w·T_r      with w = p − 1 − r forwards of warm-up:
                    r waits once between warm-up and its first backward, once after its last forward
    split backward  weight gradients may fill every wait but the one before the first input gradient
    V-shaped        so they may on a V, where the rank at the turn waits for it longest
    all             Σ T_j + (m − 1) · the last stage: microbatches pass it one by one, all boundaries twice

The slowest rank cannot be faster than `Loads.slowest`, the least over all contiguous splits of the layers.
"""

from __future__ import annotations

import numpy as np

from planner.columns import LayerTimes, Part, Seconds
from planner.loads import Loads
from planner.schedules.families import find_family
from planner.skeletons import Column


def least_seconds(pp: Column, microbatches: Column, times: LayerTimes, load: Loads) -> Seconds:
    """Return the least seconds of a pipeline of any family."""
    m, p = microbatches, pp
    chain = _split_chain(m, times, load, last_layers=np.zeros_like(p)) + 2 * (p - 1) * times.hop
    return np.asarray(np.where(p > 1, np.maximum(m * load.slowest, chain), m * load.total))


def even_work(layers: int, times: LayerTimes) -> tuple[Seconds, Seconds, Seconds]:
    """Return a microbatch's work, and the least chain: of the first microbatch, and of each further one.

    No pipeline is faster than all work divided evenly, nor than the chain; see `least_seconds`.
    """
    forward, last = times.block.forward, _end_gradient(times.last, times.last_alone)
    repeated = times.last.forward + last
    chain = layers * (forward + _gradient(times.block)) + times.first.forward + repeated
    chain = chain + _end_gradient(times.first, times.first_alone)
    return layers * times.block.both + times.first.both + times.last.both, chain, repeated


def pipeline_bound(
    name: str, *, pp: Column, chunks: Column, microbatches: Column, times: LayerTimes, load: Loads
) -> Seconds:
    """Return the least seconds from the first forward to the last backward (or weight gradient)."""
    family = find_family(name)
    m, p, slowest = microbatches, pp, load.slowest
    any_order = np.where(p > 1, m * slowest, m * load.total)
    hops = (p - 1) * times.hop
    if not family.flush:
        return np.asarray(any_order)  # filling and draining are shared by many steps
    if name == "naive":
        return np.asarray(m * (load.total + 2 * hops))
    bound = np.maximum(any_order, _chain_bound(name, p, chunks, m, times=times, load=load))
    if family.placement != "loop":
        turn = (p - 1) * (load.base // chunks) * times.block.forward + hops
        bound = np.maximum(bound, m * load.base * times.block.both + turn)
        bound = np.maximum(bound, _turn_bound(name, p, m, times, load))
        if name in {"v-half", "v-min"}:
            bound = np.maximum(bound, _block_bound(name, p, m, times, load))
        return np.where(p > 1, bound, any_order)
    last = load.last_layers * times.block.both + times.last.both
    if family.split:
        bound = np.maximum(bound, m * last + _forwards_before(p, times, load) + hops)
        if name in WARMUP_FACTORS:
            bound = np.maximum(bound, _first_rank_bound(name, p, m, times, load) + 2 * hops)
            bound = np.maximum(bound, _slowest_rank_bound(name, p, m, times, load) + hops)
            bound = np.maximum(bound, _last_gradient_bound(name, p, m, times, load) + 2 * hops)
        return np.where(p > 1, bound, any_order)
    before = ((p - 2) * (load.base // chunks) + load.first_layers // chunks) * times.block.both
    bound = np.maximum(bound, m * last + before + times.first.both + 2 * hops)
    if name in {"1f1b", "gpipe"}:
        # A slower slowest rank never lowers either; of 1F1B that needs more microbatches than ranks.
        waits = load.total if name == "gpipe" else np.where(m > p, 2 * load.total - p * slowest, slowest)
        waits = np.maximum(waits, slowest)
        bound = np.maximum(bound, (m - 1) * slowest + waits + 2 * hops)
    return np.where(p > 1, bound, any_order)


def _chain_bound(
    name: str, p: Column, chunks: Column, m: Column, *, times: LayerTimes, load: Loads
) -> Seconds:
    """All microbatches pass the model's last stage one by one, the first comes and the last one goes.

    Every boundary between two stages of different ranks is crossed both ways.
    """
    family = find_family(name)
    crossings = p * chunks - 1 if family.placement == "loop" else (p - 1) * chunks
    last_layers = load.last_layers // chunks
    if family.split:
        chain = _split_chain(m, times, load, last_layers=last_layers)
    else:
        chain = load.total + (m - 1) * (last_layers * times.block.both + times.last.both)
    return np.asarray(chain + 2 * crossings * times.hop)


def _split_chain(m: Column, times: LayerTimes, load: Loads, *, last_layers: Column) -> Seconds:
    """Forwards and input gradients of all layers, and of the last stage once for each microbatch."""
    gradient = _gradient(times.block)
    first = _end_gradient(times.first, times.first_alone)
    last = _end_gradient(times.last, times.last_alone)
    both = times.block.forward + gradient
    whole = load.layers * both + times.first.forward + first + times.last.forward + last
    return np.asarray(whole + (m - 1) * (last_layers * both + times.last.forward + last))


def _gradient(part: Part) -> Seconds:
    """Return the input gradient of a part whose backward is split."""
    return part.backward - np.minimum(part.weight_gradient, part.backward)


def _end_gradient(least: Part, alone: Part) -> Seconds:
    """Return the least that an end adds to the input gradient of its stage."""
    return np.maximum(0.0, least.backward - alone.weight_gradient)


WARMUP_FACTORS = {"zb-h1": 1, "zb-h2": 2}


def _forwards_before(p: Column, times: LayerTimes, load: Loads) -> Seconds:
    """Forwards of one microbatch through all ranks but the last."""
    return ((p - 2) * load.base + load.first_layers) * times.block.forward + times.first.forward


def _first_rank_bound(name: str, p: Column, m: Column, times: LayerTimes, load: Loads) -> Seconds:
    """ZB-H1 and ZB-H2: the first rank waits for its first input gradient with only forwards to do.

    Hops are left to the caller.
    """
    block, first, last = times.block, times.first, times.last
    own = load.first_layers
    trip = (load.layers - own) * (block.forward + _gradient(block))
    trip = trip + last.forward + _end_gradient(last, times.last_alone)
    done = np.minimum(WARMUP_FACTORS[name] * (p - 1), m - 1)
    done = done * (own * block.forward + times.first_alone.forward)
    return np.asarray(m * (own * block.both + first.both) + trip - done)


def _slowest_rank_bound(name: str, p: Column, m: Column, times: LayerTimes, load: Loads) -> Seconds:
    """ZB-H1 and ZB-H2: so does the slowest rank, wherever it lies.

    With k ranks behind it, it has done at most `factor` · k forwards more when the first input gradient comes
    back. That is linear in k but for one kink, so the least over k is at an end or at the kink. Hops are left
    to the caller.
    """
    block, factor = times.block, WARMUP_FACTORS[name]
    others = (load.layers - load.most) * block.forward
    gradient = np.minimum(load.base, load.last_layers) * _gradient(block)
    forward = load.most * block.forward + times.first_alone.forward
    waits = [
        k * gradient - np.minimum(factor * k, m - 1) * forward
        for k in (np.zeros_like(p), p - 1, np.minimum(p - 1, (m - 1) / factor))
    ]
    return np.asarray(m * load.slowest + others + np.minimum.reduce(waits))


def _turn_bound(name: str, p: Column, m: Column, times: LayerTimes, load: Loads) -> Seconds:
    """V-shaped families: the rank at the turn waits for its first input gradient.

    That has gone through all forwards and through the input gradients on the way up the V; before it, the
    rank has done no more than the forwards that its list begins with.
    """
    block = times.block
    half = -(-load.base // 2)
    done = _first_forwards(name, p, m) * half * block.forward
    chain = load.layers * block.forward + times.first.forward + times.last.forward
    up = load.first_layers // 2 + (p - 2) * (load.base // 2)
    chain = chain + up * _gradient(block) + _end_gradient(times.last, times.last_alone)
    return np.asarray(m * load.base * block.both + chain - done + 3 * (p - 1) * times.hop)


def _block_bound(name: str, p: Column, m: Column, times: LayerTimes, load: Loads) -> Seconds:
    """V-half and V-min: their blocks interlock, so unequal cells cost time in every microbatch.

    Neighbouring ranks pass three forwards and three input gradients around every two microbatches of V-half
    (even p), and three forwards or three input gradients every microbatch of V-min, counted in ranks.
    """
    forward, gradient = (
        2 * (load.base // 2) * part for part in (times.block.forward, _gradient(times.block))
    )
    if name == "v-half":
        return np.where((p >= 4) & (p % 2 == 0), m * 1.5 * (forward + gradient), 0.0)
    return np.where(p >= 4, m * 3 * np.maximum(forward, gradient), 0.0)


def _first_forwards(name: str, p: Column, m: Column) -> Column:
    """Forwards, of both stages, that the rank at the turn of a V lists before its first backward."""
    if name == "zb-v":
        return np.asarray(2 * np.minimum(m, p))
    if name == "dualpipe-v":
        return np.asarray(np.minimum(m, p + 1) + np.minimum(m, p))
    delays, turn = (3, 2 * (p % 2 == 0)) if name == "v-half" else (2, 1 * (p % 3 == 0))
    up = (p - 1) * delays + 1
    down = up + 1 + turn
    return np.asarray(np.minimum(m, -(-up // 6)) + np.minimum(m, -(-down // 6)))


def _last_gradient_bound(name: str, p: Column, m: Column, times: LayerTimes, load: Loads) -> Seconds:
    """ZB-H1 and ZB-H2: the last microbatch's input gradient travels from the last rank to the first.

    Before it the last rank has done all forwards and input gradients, and the weight gradients that its list
    does not delay. Hops are left to the caller.
    """
    block, last = times.block, times.last
    gradient, last_gradient = _gradient(block), _end_gradient(last, times.last_alone)
    undelayed = np.maximum(0, m - 1 - WARMUP_FACTORS[name] * (p - 1))
    turn = m * (load.last_layers * (block.forward + gradient) + last.forward + last_gradient)
    turn = turn + undelayed * (load.last_layers * block.weight_gradient + last.weight_gradient)
    back = ((p - 2) * load.base + load.first_layers) * gradient
    return np.asarray(_forwards_before(p, times, load) + turn + back)


def depth(name: str, *, rank: Column, pp: Column, chunks: Column, microbatches: Column) -> Seconds:
    """Return the microbatches that `rank` holds at its peak, in units of all its layers; at most the truth.

    Of a family that is not known here: one stage.
    """
    m, p = microbatches, pp
    if name in {"gpipe", "looped-bfs"}:
        held = m * 1.0
    elif name == "naive":
        held = np.ones(np.shape(m))
    elif name == "1f1b":
        held = np.minimum(m, p - rank) * 1.0
    elif name in WARMUP_FACTORS:
        held = np.minimum(m, WARMUP_FACTORS[name] * (p - 1) + 1) * 1.0
    elif name == "interleaved-1f1b":
        group = -(-m // np.maximum(1, m // p))
        warmup = 2 * (p - 1 - rank) + (chunks - 1) * group
        held = np.minimum(m * chunks, warmup + 1) / chunks
    elif name in {"zb-v", "dualpipe-v"}:
        held = (np.minimum(m, 2 * p - 1 - rank) + np.minimum(m, rank + 1)) / 2
        held = held + (0.5 * (m > 2 * p - 1 - rank) if name == "dualpipe-v" else 0.0)
    elif name == "v-half":
        held = np.where(m < 2 * p, np.minimum((m + 1) / 2, (p + 1) / 2), p // 2 + 1.0)
    elif name in V_DEPTHS:
        slope, offset = V_DEPTHS[name]
        held = np.minimum((m + 1) / 2, slope * p + offset)
    else:
        held = 1.0 / chunks
    return np.asarray(np.where(p > 1, held, 1.0))


# Peak of a V-shaped family: slope · p + offset microbatches, half of that while the first ones climb the V.
V_DEPTHS = {"v-min": (1 / 3, 0.5)}
