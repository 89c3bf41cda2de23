"""What `cuboid bench` prints: a table of layer times, one of messages, and the machine in a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from launcher.console import stdout_console, table
from planner.bench_compare import compare_with
from planner.link_fits import LinkFit, fit_links
from profiles.cluster import ClusterSpec
from profiles.costs import CollectiveCost, CostTable, LayerCost
from profiles.documents import plain
from profiles.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

SHORT_PHASES = {"input_gradient": "input grad", "weight_gradient": "weight grad"}
PHASES = ("forward", "backward", "input_gradient", "weight_gradient", "recompute")


def costs_document(costs: CostTable, cluster: ClusterSpec | None) -> dict[str, Any]:
    """Return a cost table for machines, with the fits and comparisons that `print_costs` shows."""
    comparisons = compare_with(costs, cluster) if cluster else ()
    return plain(costs) | {
        "fits": [asdict(fit) for fit in fit_links(costs)],
        "comparisons": [asdict(one) | {"ratio": one.ratio} for one in comparisons],
    }


def print_costs(costs: CostTable, cluster: ClusterSpec | None) -> None:
    """Print a cost table for people, compared with what is expected of `cluster`."""
    console = stdout_console()
    console.print(
        f"{costs.model.name} on {costs.device}, {costs.concurrent_ranks} ranks at once"
        + (f" on {costs.cores} core(s)" if costs.cores else ""),
        markup=False,
    )
    if costs.layers:
        console.print(_layer_table(costs.layers))
    if costs.collectives:
        console.print(_collective_table(costs.collectives))
        console.print(_fit_table(fit_links(costs)))
    line = machine_line(costs)
    if line:
        console.print(line, markup=False)
    for comparison in compare_with(costs, cluster) if cluster else ():
        console.print(comparison.sentence(), markup=False)
    for note in costs.notes:
        console.print(f"  · {note}", markup=False)


def machine_line(costs: CostTable) -> str:
    """Return the matrix-product rate, the optimizer time and the bare memory in one sentence."""
    parts = []
    if costs.matmul_flops_per_second:
        parts.append(f"matrix product {format_count(costs.matmul_flops_per_second, 'FLOP/s')} per rank")
    if costs.optimizer_seconds_per_parameter:
        seconds = format_seconds(costs.optimizer_seconds_per_parameter * 1e6)
        parts.append(f"optimizer {seconds} per million parameters")
    if costs.overlap:
        parts.append(f"a block takes {costs.overlap.compute_slowdown:.2f} × as long beside collectives")
    if costs.process_bytes:
        parts.append(f"bare process {format_bytes(costs.process_bytes)}")
    return "; ".join(parts)


def _layer_table(layers: Iterable[LayerCost]) -> Table:
    rows: dict[tuple[str, int, int, bool, str, str], dict[str, LayerCost]] = {}
    for cost in layers:
        key = (
            cost.component,
            cost.tp,
            cost.microbatch,
            cost.sequence_parallel,
            cost.recompute,
            cost.precision,
        )
        rows.setdefault(key, {})[cost.phase] = cost
    shown = [phase for phase in PHASES if any(phase in phases for phases in rows.values())]
    result = table("one layer, one microbatch: medians; the largest half quartile distance; bytes kept")
    for name in ("component", "tp", "micro"):
        result.add_column(name)
    for phase in shown:
        result.add_column(SHORT_PHASES.get(phase, phase), justify="right", no_wrap=True)
    for name in ("spread", "kept"):
        result.add_column(name, justify="right", no_wrap=True)
    for (component, tp, microbatch, sequence_parallel, again, precision), phases in rows.items():
        mark = component + (" sp" if sequence_parallel else "") + (f" {again}" if again != "none" else "")
        mark += "" if precision == "fp32" else f" {precision}"
        cells = [format_seconds(phases[phase].seconds) if phase in phases else "" for phase in shown]
        spread = max(_spread(cost) for cost in phases.values())
        kept = format_bytes(next(iter(phases.values())).activation_bytes)
        result.add_row(mark, str(tp), str(microbatch), *cells, f"± {spread:.0%}", kept)
    return result


def _collective_table(collectives: Sequence[CollectiveCost]) -> Table:
    """Return the messages; on processors also what one adds to ranks that compute meanwhile."""
    result = table("messages")
    for name in ("operation", "groups × ranks"):
        result.add_column(name)
    busy = any(cost.busy_seconds for cost in collectives)
    for name in ("message", "time", "rate", *(["amid work"] if busy else [])):
        result.add_column(name, justify="right")
    for cost in collectives:
        rate = format_count(cost.message_bytes / cost.seconds, "B/s")
        shape = f"{cost.groups} × {cost.ranks}" + (f", {cost.stride} apart" if cost.stride > 1 else "")
        amid = format_seconds(cost.busy_seconds) if cost.busy_seconds else ""
        cells = [cost.operation, shape, format_bytes(cost.message_bytes), _time(cost), rate, amid]
        result.add_row(*cells[: len(result.columns)])
    return result


def _fit_table(fits: Iterable[LinkFit]) -> Table:
    result = table("time ≈ latency + message / rate")
    for name in ("operation", "groups × ranks"):
        result.add_column(name)
    for name in ("latency", "rate", "residual"):
        result.add_column(name, justify="right")
    for fit in fits:
        shape = f"{fit.groups} × {fit.ranks}" + (f", {fit.stride} apart" if fit.stride > 1 else "")
        rate = format_count(fit.bytes_per_second, "B/s")
        error = f"{fit.residual:.0%}, worst {fit.worst:.0%}"
        result.add_row(fit.operation, shape, format_seconds(fit.latency_seconds), rate, error)
    return result


def _spread(cost: LayerCost | CollectiveCost) -> float:
    """Return half the quartile distance as a share of the median."""
    return cost.spread_seconds / cost.seconds / 2


def _time(cost: CollectiveCost) -> str:
    """Return the median and its spread; what nccl-tests printed has none."""
    spread = f" ± {_spread(cost):.0%}" if cost.spread_seconds else ""
    return format_seconds(cost.seconds) + spread
