"""From samples to the CostTable, and from an earlier table on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from profiles.bench_request import BenchRequest
from profiles.costs import CollectiveCost, CostTable, LayerCost, OverlapCost, Phase, shape_of
from runtime.bench.measured import Measured
from runtime.bench.points import (
    CollectivePoint,
    LayerPoint,
    MatmulPoint,
    OptimizerPoint,
    OverlapPoint,
    Point,
    overlap_point,
)
from runtime.bench.samples import Summary, summarise
from runtime.bench.subject import software_versions

PHASES: tuple[Phase, ...] = ("forward", "backward", "input_gradient", "weight_gradient")

Cost = TypeVar("Cost", LayerCost, CollectiveCost)


def table(
    request: BenchRequest,
    results: Mapping[Point, Measured],
    *,
    process_bytes: int | None,
    notes: tuple[str, ...] = (),
) -> CostTable:
    """Return the table of all that was measured."""
    layers: list[LayerCost] = []
    collectives: list[CollectiveCost] = []
    matmul = optimizer = None
    overlap = None
    for point, measured in results.items():
        if isinstance(point, LayerPoint):
            layers.extend(_layer_costs(request, point, measured, results))
        elif isinstance(point, CollectivePoint):
            collectives.append(_collective_cost(point, measured))
        elif isinstance(point, MatmulPoint):
            matmul = 1.0 / min(summarise(laps).seconds for laps in measured.laps.values())
        elif isinstance(point, OverlapPoint) and measured.laps:
            overlap = _overlap_cost(point, measured)
        elif isinstance(point, OptimizerPoint) and measured.laps:
            optimizer = summarise(measured.laps["seconds"]).mean_seconds
    return CostTable(
        machine=request.machine,
        device=request.device,
        model=request.model,
        concurrent_ranks=request.ranks,
        cores=request.cores,
        matmul_flops_per_second=matmul,
        optimizer_seconds_per_parameter=optimizer,
        process_bytes=process_bytes,
        software=software_versions(),
        layers=tuple(layers),
        collectives=tuple(collectives),
        overlap=overlap,
        notes=notes,
    )


def _layer_costs(
    request: BenchRequest, point: LayerPoint, measured: Measured, results: Mapping[Point, Measured]
) -> list[LayerCost]:
    found: dict[Phase, Summary] = {
        phase: summarise(measured.laps[phase]) for phase in PHASES if phase in measured.laps
    }
    if point.recompute != "none":
        plain = results.get(replace(point, recompute="none"))
        if plain is None or "backward" not in plain.laps:
            return []
        found = {"recompute": _difference(found["backward"], summarise(plain.laps["backward"]))}
    footprint = measured.footprint
    return [
        LayerCost(
            component=point.component,
            phase=phase,
            microbatch=point.microbatch,
            seq_len=request.seq_len,
            tp=point.tp,
            sequence_parallel=point.sequence_parallel,
            recompute=point.recompute,
            precision=point.precision,
            seconds=summary.seconds,
            spread_seconds=summary.spread_seconds,
            mean_seconds=summary.mean_seconds,
            samples=summary.samples,
            cpu_seconds=summary.cpu_seconds,
            activation_bytes=footprint.activation_bytes if footprint else 0,
            workspace_bytes=footprint.workspace_bytes if footprint else 0,
        )
        for phase, summary in found.items()
    ]


def _difference(longer: Summary, shorter: Summary) -> Summary:
    """What recomputation adds to a backward; at least a little, so that a noisy pair stays a time."""
    least = 0.01 * shorter.seconds
    cpu = None
    if longer.cpu_seconds is not None and shorter.cpu_seconds is not None:
        cpu = max(least, longer.cpu_seconds - shorter.cpu_seconds)
    return Summary(
        seconds=max(least, longer.seconds - shorter.seconds),
        spread_seconds=(longer.spread_seconds**2 + shorter.spread_seconds**2) ** 0.5,
        mean_seconds=max(least, longer.mean_seconds - shorter.mean_seconds),
        samples=min(longer.samples, shorter.samples),
        cpu_seconds=cpu,
    )


def _collective_cost(point: CollectivePoint, measured: Measured) -> CollectiveCost:
    summary = summarise(measured.laps["seconds"])
    return CollectiveCost(
        operation=point.operation,
        ranks=point.ranks,
        groups=point.groups,
        stride=point.stride,
        message_bytes=point.message_bytes,
        seconds=summary.seconds,
        spread_seconds=summary.spread_seconds,
        mean_seconds=summary.mean_seconds,
        samples=summary.samples,
        cpu_seconds=summary.cpu_seconds,
        busy_seconds=_busy_seconds(measured, summary),
    )


def _busy_seconds(measured: Measured, alone: Summary) -> float | None:
    """Return what the collective adds to work on all ranks; no less than its processor time."""
    if "product_and_collective" not in measured.laps:
        return None
    both, product = (
        summarise(measured.laps[name]).mean_seconds for name in ("product_and_collective", "product")
    )
    return max(both - product, alone.cpu_seconds or 0.0, 1e-9)


def _overlap_cost(point: OverlapPoint, measured: Measured) -> OverlapCost:
    seconds = {name: summarise(laps).seconds for name, laps in measured.laps.items()}
    return OverlapCost(
        microbatch=point.microbatch,
        message_bytes=point.message_bytes,
        compute_slowdown=seconds["compute_beside"] / seconds["compute_alone"],
        collective_slowdown=seconds["messages_beside"] / seconds["messages_alone"],
        samples=len(measured.laps["compute_beside"]),
    )


def known_points(known: CostTable, request: BenchRequest) -> frozenset[Point]:
    """Return the points that an earlier table of the same subject holds."""
    found: set[Point] = {
        LayerPoint(
            component=cost.component,
            microbatch=cost.microbatch,
            tp=cost.tp,
            precision=cost.precision,
            sequence_parallel=cost.sequence_parallel,
            recompute=cost.recompute,
        )
        for cost in known.layers
        if cost.seq_len == request.seq_len
    }
    found |= {
        CollectivePoint(
            operation=cost.operation,
            ranks=cost.ranks,
            groups=cost.groups,
            stride=cost.stride,
            message_bytes=cost.message_bytes,
        )
        for cost in known.collectives
    }
    if known.matmul_flops_per_second:
        found.add(MatmulPoint())
    if known.optimizer_seconds_per_parameter:
        found.add(OptimizerPoint())
    if known.overlap:
        found.add(overlap_point(request))
    return frozenset(found)


def merge(known: CostTable, now: CostTable) -> CostTable:
    """Return both tables' entries; where both have one, that with more samples."""
    return now.model_copy(
        update={
            "layers": _merged(known.layers, now.layers),
            "collectives": _merged(known.collectives, now.collectives),
            "matmul_flops_per_second": now.matmul_flops_per_second or known.matmul_flops_per_second,
            "overlap": now.overlap or known.overlap,
            "process_bytes": known.process_bytes if now.process_bytes is None else now.process_bytes,
            "optimizer_seconds_per_parameter": now.optimizer_seconds_per_parameter
            or known.optimizer_seconds_per_parameter,
        }
    )


def _merged(known: tuple[Cost, ...], now: tuple[Cost, ...]) -> tuple[Cost, ...]:
    entries: dict[tuple[object, ...], Cost] = {shape_of(cost): cost for cost in known}
    for cost in now:
        before = entries.get(shape_of(cost))
        if before is None or cost.samples >= before.samples:
            entries[shape_of(cost)] = cost
    return tuple(entries.values())
