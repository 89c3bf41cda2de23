"""What a schedule is expected to take, in closed form: the order in which layouts are worth simulating.

Unlike the bounds these are not proved; they only decide what is priced first. Published bubbles where there
are any; those of V-shaped families are read off their simulated timelines.
"""

from __future__ import annotations

import numpy as np

from planner.columns import LayerTimes, Seconds
from planner.loads import Loads
from planner.skeletons import Column


def pipeline_expectation(
    name: str,
    *,
    pp: Column,
    chunks: Column,
    microbatches: Column,
    layers: int,
    times: LayerTimes,
    load: Loads,
) -> Seconds:
    """Return the seconds a pipeline of `layers` blocks is expected to take.

    Stages of unequal size cost a chunked schedule about half of what equal stages of the larger size would.
    """
    m, p = microbatches, pp
    block = times.block
    stage = -(-layers // (p * chunks))
    slowest = np.where(
        chunks > 1, (load.slowest + np.maximum(load.slowest, stage * chunks * block.both)) / 2, 0.0
    )
    slowest = np.maximum(load.slowest, slowest)
    forward = load.most * block.forward
    weight: Seconds = np.asarray(load.most * np.minimum(block.weight_gradient, block.backward))
    gradient = load.most * block.backward - weight
    hops = 2 * (p - 1) * times.hop
    steady, ahead = m * slowest, (p - 1) * load.total / p
    seconds: Seconds = np.asarray(steady + ahead / chunks)
    if name in {"1f1b", "gpipe"}:
        seconds = np.asarray((m - 1) * slowest + load.total)
    elif name == "zb-h1":
        full = (p - 1) * (forward + gradient - weight)
        seconds = np.asarray(steady + np.maximum(full, (p - 1) * (forward + gradient) - (m - 1) * weight))
    elif name == "zb-h2":
        few = (p - 1) * (forward + gradient) - (m - 1) * weight / 2
        seconds = np.asarray(steady + np.maximum((p - 1) * np.maximum(forward, gradient - weight), few))
    elif name in {"zb-v", "dualpipe-v", "v-half", "v-min"}:
        # V-half and V-min go at the pace of the larger of a rank's two stages.
        larger = -(-load.most // 2) * 2 / load.most if name in {"v-half", "v-min"} else 1.0
        cells = (forward * larger, gradient * larger, weight * larger)
        bubble, hops = _v_bubble(name, p, m, cells), 5 * (p - 1) * times.hop
        bubble = bubble + m * (larger - 1.0) * load.most * block.both
        # The ends make the first rank the slowest, which waits least.
        seconds = np.maximum(m * load.slowest, m * load.most * block.both + bubble)
    return np.asarray(np.where(p > 1, seconds + hops, m * load.total))


def _v_bubble(name: str, p: Column, m: Column, cells: tuple[Seconds, Seconds, Seconds]) -> Seconds:
    """What a V of equal ranks takes beyond its work; `cells` are forward, input and weight gradient."""
    forward, gradient, weight = cells
    work = forward + gradient + weight
    if name == "zb-v":
        few = (p - 1) * (forward + gradient) - (m - 1) * forward
        return np.asarray(np.maximum((p - 1) * gradient / 2, few))
    if name == "dualpipe-v":
        few = (p - 1) * (forward + gradient + weight / 2) - (m - 1) * forward
        return np.asarray(np.maximum((p - 1) * np.maximum(gradient - weight / 2, gradient / 2), few))
    if name == "v-half":
        pair = 1.5 * np.maximum.reduce([forward + gradient, gradient + weight, forward + weight])
        return np.asarray(m * np.maximum(0.0, pair - work) + 1.36 * (p - 1) * pair / 3)
    triple = 3 * np.maximum.reduce([forward, gradient, weight])
    return np.asarray(m * np.maximum(0.0, triple - work) + 1.93 * (p - 1) * triple / 3)
