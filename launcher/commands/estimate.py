"""`cuboid estimate`: the price of one layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.console import counted, print_json, stdout_console, table
from launcher.plan_costs import costs_of
from planner.estimate import Estimate
from planner.plan import Plan, load_plan
from profiles.documents import plain
from profiles.units import format_bytes, format_count, format_seconds


def estimate(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.yaml, by hand or from `cuboid plan`.")],
    costs: Annotated[
        Path | None, typer.Option(help="costs.yaml from `cuboid bench`; the plan's own if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Price one layout: step time, memory of every pipeline rank, and where each number is from.

    Nothing is run. Without --costs the table that the plan was made with is used, or else the constants of
    the devices and links.

    Example: cuboid estimate plan.yaml
             cuboid estimate plan.yaml --costs costs.yaml --json
    """
    from planner.costs import price  # noqa: PLC0415 (numpy; --help must not pay for it)

    resolved = load_plan(plan)
    measured = costs_of(resolved, plan, costs)
    result = price(resolved.model, resolved.cluster, resolved.layout, costs=measured)
    if json:
        print_json(plain(result))
        return
    show(resolved, result)


def show(plan: Plan, result: Estimate) -> None:
    """Print the cost report for people."""
    out = stdout_console()
    layout, device = plan.layout, plan.cluster.device
    out.print(
        f"[bold]{plan.model.name}[/bold] ({format_count(plan.model.parameters)} parameters) on"
        f" {layout.world_size} × {device.name} ({plan.cluster.name}):"
        f" tp {layout.tp} · pp {layout.pp} · dp {layout.dp}, {layout.schedule},"
        f" {counted(layout.chunks, 'chunk')},"
        f" {counted(layout.microbatches, 'microbatch', 'microbatches')} of {layout.microbatch}"
    )
    out.print(
        f"step [bold]{format_seconds(result.step_seconds)}[/bold]{_interval(result)}"
        f" · {format_count(result.tokens_per_second)}"
        f" tokens/s · {format_count(result.model_flops_per_device, 'FLOP/s')} per device"
        + (f" · MFU {result.mfu:.1%}" if result.mfu is not None else "")
        + f" · bubble {result.bubble_fraction:.1%}"
    )
    times = table("Time of the slowest rank (exposed)")
    times.add_column("part")
    times.add_column("seconds", justify="right")
    times.add_column("share", justify="right")
    for name, seconds in result.time.model_dump().items():
        times.add_row(name, format_seconds(seconds), f"{seconds / result.step_seconds:.1%}")
    out.print(times)
    usage = table("Memory per pipeline rank")
    fields = ("weights", "gradients", "optimizer", "activations", "workspace", "total")
    for name in ("rank", *fields):
        usage.add_column(name, justify="right")
    for row in result.memory.per_stage:
        usage.add_row(str(row.rank), *(format_bytes(getattr(row, name)) for name in fields))
    out.print(usage)
    room = device.memory_bytes
    verdict = "fits" if result.fits else "[bold red]does not fit[/bold red]"
    out.print(
        f"peak {format_bytes(result.memory.peak_bytes)} of {format_bytes(room)}"
        f" ({result.memory.peak_bytes / room:.0%}): {verdict}"
    )
    for name, origin in result.provenance.items():
        out.print(f"[dim]{name}: {origin}[/dim]")
    for note in result.notes:
        out.print(f"note: {note}")


def _interval(result: Estimate) -> str:
    if result.step_seconds_low is None or result.step_seconds_high is None:
        return ""
    return f" ({format_seconds(result.step_seconds_low)} to {format_seconds(result.step_seconds_high)})"
