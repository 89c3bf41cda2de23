"""`cuboid plan`: search for the best layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from launcher.console import print_json, stderr_console, stdout_console, table
from planner.pins import parse_pins
from profiles.documents import plain, read_document
from profiles.errors import ConfigError, InfeasibleError
from profiles.presets import load_cluster, load_model
from profiles.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from planner.search import RankedPlan, SearchResult
    from profiles.cluster import ClusterSpec
    from profiles.costs import CostTable
    from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the ranked table; one whose every value is `plain` is left out."""

    name: str
    plain: str | None = None
    number: bool = False
    wraps: bool = False


COLUMNS = (
    Column(name=""),
    Column(name="tp·pp·dp"),
    Column(name="micro"),
    Column(name="schedule"),
    Column(name="options", plain="–", wraps=True),
    Column(name="step", number=True),
    Column(name="MFU", number=True),
    Column(name="memory", number=True),
    Column(name="limited by", wraps=True),
)


def plan(
    *,
    model: Annotated[str, typer.Option(help="Preset name, Hugging Face config.json, or model.yaml.")],
    cluster: Annotated[str, typer.Option(help="Preset name, or cluster.yaml from `cuboid probe`.")],
    devices: Annotated[
        int | None, typer.Option(help="How many devices; all of the cluster if left out.")
    ] = None,
    global_batch: Annotated[int, typer.Option(help="Sequences per optimizer step.")],
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens per sequence; the model's own if left out.")
    ] = None,
    costs: Annotated[Path | None, typer.Option(help="costs.yaml from `cuboid bench`.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to list.")] = 10,
    pin: Annotated[str, typer.Option(help="Decided fields: tp=8,schedule=1f1b.")] = "",
    target: Annotated[str, typer.Option(help="What must run it: cuboid, megatron or any.")] = "cuboid",
    use_all: Annotated[bool, typer.Option("--use-all", help="Leave no device idle.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the best plan here.")] = None,
) -> None:
    """Search all layouts of a model on a cluster and rank the fastest.

    Example: cuboid plan --model gpt3-175b --cluster selene --devices 64 --global-batch 64 -o plan.yaml
    """
    from planner.plan import Plan, save_plan  # noqa: PLC0415 (start-up time of --help)
    from planner.search import search  # noqa: PLC0415

    pins = parse_pins(pin)
    spec = load_model(model)
    if seq_len is not None:
        spec = _with_seq_len(spec, seq_len)
    machine = _cluster(cluster, devices)
    count = devices or machine.devices
    if global_batch < 1:
        raise ConfigError(f"--global-batch {global_batch}: must be at least 1")
    result = search(
        spec,
        machine,
        devices=count,
        global_batch=global_batch,
        costs=None if costs is None else _costs(costs),
        pins=pins.values,
        top=top,
        target=target,
        idle=not use_all,
    )
    if output is not None:
        best = result.best
        save_plan(output, Plan(model=spec, cluster=machine, layout=best.layout, estimate=best.estimate))
        stderr_console().print(f"wrote {output}")
    if json:
        print_json(to_json(result))
    else:
        show(result, spec, machine, count)


def to_json(result: SearchResult) -> dict[str, Any]:
    """Return the search result as plain data."""
    return {
        "plans": [
            {
                "rank": ranked.rank,
                "layout": plain(ranked.layout),
                "estimate": plain(ranked.estimate),
                "limited_by": ranked.limited_by,
            }
            for ranked in result.plans
        ],
        "searched": result.searched,
        "infeasible": dict(result.infeasible),
        "seconds": result.seconds,
    }


def show(
    result: SearchResult,
    model: ModelSpec,
    cluster: ClusterSpec,
    devices: int,
    *,
    console: Console | None = None,
) -> None:
    """Print the ranked table, the chosen plan marked, and why it won."""
    from planner.verdict import compare  # noqa: PLC0415 (start-up time)

    console = console or stdout_console()
    rows = table(
        f"{model.name} ({format_count(model.parameters)} parameters) on {devices} × {cluster.device.name},"
        f" global batch {result.best.layout.global_batch}"
    )
    cells = [_cells(ranked, cluster, devices) for ranked in result.plans]
    for column in COLUMNS:
        values = {row[column.name] for row in cells}
        if column.plain is None or values != {column.plain}:
            justify: Literal["left", "right"] = "right" if column.number else "left"
            rows.add_column(column.name, justify=justify, no_wrap=not column.wraps)
    for ranked, row in zip(result.plans, cells, strict=True):
        shown = [row[str(column.header)] for column in rows.columns]
        rows.add_row(*shown, style="bold" if ranked.rank == 1 else None)
    console.print(rows)
    best = result.best.estimate
    why = f" {compare(best, result.plans[1].estimate)}" if len(result.plans) > 1 else ""
    console.print(f"▶ chosen: {format_count(best.tokens_per_second)} tokens/s.{why}")
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result.infeasible.items()))
    console.print(
        f"{result.searched:,} layouts in {format_seconds(result.seconds)}"
        + (f"; infeasible: {refused}" if refused else "")
    )
    for note in result.best.estimate.notes:
        console.print(f"note: {note}")


def _cells(ranked: RankedPlan, cluster: ClusterSpec, devices: int) -> dict[str, str]:
    layout, estimate = ranked.layout, ranked.estimate
    options = []
    if layout.recompute != "none":
        mode = layout.recompute if isinstance(layout.recompute, str) else "mixed"
        options.append(f"recompute {mode}")
    if layout.sequence_parallel:
        options.append("sp")
    if layout.zero:
        options.append(f"zero{layout.zero}")
    if layout.rank_order != "tp-dp-pp":
        options.append(layout.rank_order)
    if layout.world_size < devices:
        options.append(f"{devices - layout.world_size} idle")
    share = estimate.memory.peak_bytes / cluster.device.memory_bytes
    return {
        "": ("▶ " if ranked.rank == 1 else "  ") + str(ranked.rank),
        "tp·pp·dp": f"{layout.tp}·{layout.pp}·{layout.dp}",
        "micro": str(layout.microbatch),
        "schedule": layout.schedule + (f" ×{layout.chunks}" if layout.chunks > 1 else ""),
        "options": " ".join(options) or "–",
        "step": format_seconds(estimate.step_seconds),
        "MFU": "–" if estimate.mfu is None else f"{estimate.mfu:.1%}",
        "memory": f"{format_bytes(estimate.memory.peak_bytes)} {share:.0%}",
        "limited by": ranked.limited_by,
    }


def _with_seq_len(model: ModelSpec, seq_len: int) -> ModelSpec:
    if seq_len < 1:
        raise ConfigError(f"--seq-len {seq_len}: must be at least 1")
    return model.model_copy(update={"seq_len": seq_len})


def _cluster(name: str, devices: int | None) -> ClusterSpec:
    """Return the cluster with as many nodes as `devices` need; says so where that is more than it has."""
    cluster = load_cluster(name)
    if devices is None:
        return cluster
    if devices < 1:
        raise ConfigError(f"--devices {devices}: must be at least 1")
    nodes = -(-devices // cluster.devices_per_node)
    if nodes == cluster.nodes:
        return cluster
    if cluster.links[-1].span is not None and cluster.links[-1].span < devices:
        raise InfeasibleError(
            f"--devices {devices}: {cluster.name} has {cluster.devices} devices and no link beyond them"
        )
    if nodes > cluster.nodes:
        stderr_console().print(
            f"{cluster.name} has {cluster.devices} devices; planning for {nodes} such nodes"
        )
    return cluster.with_nodes(nodes)


def _costs(path: Path) -> CostTable:
    from profiles.costs import CostTable  # noqa: PLC0415 (start-up time)

    return read_document(path).read(CostTable)
