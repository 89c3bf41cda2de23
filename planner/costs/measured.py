"""Times from a CostTable: what `cuboid bench` measured, between the shapes that it measured.

A step is a sum of many phases, so means are used where the table has them, not medians.

Layer times are interpolated linearly in the microbatch (and carried on with the last slope), collectives in
the message size. A shape that was never measured is refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from planner.costs.compute import ComponentTimes
from profiles.cluster import Precision
from profiles.errors import ConfigError

if TYPE_CHECKING:
    from profiles.costs import Collective, CollectiveCost, Component, CostTable, LayerCost, Phase


def interpolate(x: float, points: Sequence[tuple[float, float]]) -> float:
    """Return y at `x` on the straight lines through `points`; proportional below the first, last slope above.

    A single point is scaled in proportion.
    """
    points = sorted(points)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if x <= xs[0] or len(points) == 1:
        return float(ys[0] * x / xs[0]) if x < xs[0] else float(ys[0] * (x / xs[0]))
    if x > xs[-1]:
        slope = max(0.0, (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]))
        return float(ys[-1] + slope * (x - xs[-1]))
    return float(np.interp(x, xs, ys))


def _seconds(cost: LayerCost | CollectiveCost) -> float:
    """Return what one of many in a row takes."""
    return cost.seconds if cost.mean_seconds is None else cost.mean_seconds


def _entries(
    costs: CostTable,
    component: Component,
    phase: Phase,
    *,
    tp: int,
    seq_len: int,
    sequence_parallel: bool,
    precision: Precision,
    recompute: str,
) -> list[LayerCost]:
    found = [
        cost
        for cost in costs.layers
        if (cost.component, cost.phase, cost.tp, cost.seq_len) == (component, phase, tp, seq_len)
        and cost.recompute == recompute
    ]
    found = [cost for cost in found if cost.precision == precision] or found
    return [cost for cost in found if cost.sequence_parallel == sequence_parallel] or found


def component_times(
    costs: CostTable,
    component: Component,
    *,
    microbatch: int,
    tp: int,
    seq_len: int,
    sequence_parallel: bool = False,
    precision: Precision = "fp32",
    processor_seconds: bool = False,
) -> ComponentTimes:
    """Return the measured times of one component; processor time instead of wall time if asked for.

    Where the variant was not measured (sequence parallel, precision), the times of the other stand in for it.

    Raises:
        ConfigError: when the table has no entry for this tp and sequence length.
    """

    def time(phase: Phase, recompute: str = "none") -> float | None:
        entries = _entries(
            costs,
            component,
            phase,
            tp=tp,
            seq_len=seq_len,
            sequence_parallel=sequence_parallel,
            precision=precision,
            recompute=recompute,
        )
        points = [
            (
                float(cost.microbatch),
                cost.cpu_seconds if processor_seconds and cost.cpu_seconds is not None else _seconds(cost),
            )
            for cost in entries
        ]
        return interpolate(microbatch, points) if points else None

    forward, backward = time("forward"), time("backward")
    gradient, weight = time("input_gradient"), time("weight_gradient")
    if backward is None and gradient is not None and weight is not None:
        backward = gradient + weight
    if forward is None or backward is None:
        known = sorted({cost.tp for cost in costs.layers if cost.component == component})
        raise ConfigError(
            f"the cost table has no {component} at tp = {tp}, seq_len = {seq_len}"
            f" (measured tp: {', '.join(map(str, known)) or 'none'}); run `cuboid bench` for it"
        )
    full, selective = time("recompute", "full"), time("recompute", "selective")
    return ComponentTimes(
        forward=forward,
        backward=backward,
        weight_gradient=min(backward, weight if weight is not None else backward / 2),
        recompute_selective=0.0 if selective is None else selective,
        recompute_full=forward if full is None else full,
    )


def between(costs: CostTable, *, microbatch: int, tp: int, seq_len: int) -> str:
    """Return words that tell an interpolated or extrapolated block time from a measured one, or nothing."""
    known = sorted(
        {
            cost.microbatch
            for cost in costs.layers
            if (cost.component, cost.tp, cost.seq_len) == ("block", tp, seq_len)
        }
    )
    if not known or microbatch in known:
        return ""
    below = [value for value in known if value < microbatch]
    above = [value for value in known if value > microbatch]
    if below and above:
        return f", microbatch {microbatch} interpolated between {below[-1]} and {above[0]}"
    return f", microbatch {microbatch} extrapolated from {above[0] if above else below[-1]}"


def stand_in(
    costs: CostTable, *, tp: int, seq_len: int, sequence_parallel: bool, precision: Precision
) -> str:
    """Return words that tell of block times that stand in for a variant that was not measured, or nothing."""
    blocks = [
        cost for cost in costs.layers if (cost.component, cost.tp, cost.seq_len) == ("block", tp, seq_len)
    ]
    told = ""
    precisions = {cost.precision for cost in blocks}
    if blocks and precision not in precisions:
        told += f", {' and '.join(sorted(precisions))} times in place of {precision}"
    if blocks and sequence_parallel not in {cost.sequence_parallel for cost in blocks}:
        told += f", times {'without' if sequence_parallel else 'with'} sequence parallelism"
    return told


def collective_seconds(
    costs: CostTable, operation: Collective, *, ranks: int, groups: int, message_bytes: float
) -> float | None:
    """Return the measured time of a collective, of the nearest number of groups measured; None if never.

    Where it was measured in the middle of work, that is what it costs.
    """
    found = _nearest(costs, operation, ranks=ranks, groups=groups)
    points = [(float(cost.message_bytes), cost.busy_seconds or _seconds(cost)) for cost in found]
    return _message_seconds(message_bytes, points) if points else None


def send_processor_seconds(costs: CostTable, *, groups: int, message_bytes: float) -> float:
    """Return what sending or receiving a message takes of its rank's processor; 0 where others do it."""
    found = _nearest(costs, "send_recv", ranks=2, groups=groups)
    points = [(float(cost.message_bytes), cost.cpu_seconds) for cost in found if cost.cpu_seconds is not None]
    return _message_seconds(message_bytes, points) if points else 0.0


def _nearest(costs: CostTable, operation: Collective, *, ranks: int, groups: int) -> list[CollectiveCost]:
    """Return the entries of an operation, of the nearest number of groups measured."""
    found = [cost for cost in costs.collectives if cost.operation == operation and cost.ranks == ranks]
    nearest = min({cost.groups for cost in found}, key=lambda count: (abs(count - groups), count), default=0)
    return [cost for cost in found if cost.groups == nearest]


def _message_seconds(message_bytes: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the time of a message; below the smallest one measured, that one's, which is latency."""
    return min(points)[1] if message_bytes <= min(points)[0] else interpolate(message_bytes, points)
