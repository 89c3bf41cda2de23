"""The ranked table of a search, why its first row won, and what else was asked, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from launcher.console import stdout_console, table
from planner.costs.memory import tight
from profiles.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from planner.bill import Bill
    from planner.outlook import Shift
    from planner.search import RankedPlan, SearchResult
    from profiles.cluster import ClusterSpec
    from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the ranked table; one whose every value is `plain` is left out."""

    name: str
    plain: str | None = None
    number: bool = False
    wraps: bool = False


TIGHT = " !"

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


def show(
    result: SearchResult,
    model: ModelSpec,
    cluster: ClusterSpec,
    devices: int,
    *,
    console: Console | None = None,
) -> None:
    """Print the ranked table, the chosen plan marked, and why it won."""
    from planner.verdict import compare, memory_warning  # noqa: PLC0415 (start-up time)

    console = console or stdout_console()
    rows = table(
        f"{model.name} ({format_count(model.parameters)} parameters) on {devices} × {cluster.device.name},"
        f" global batch {result.best.layout.global_batch}"
    )
    written = [cells(ranked, cluster, devices) for ranked in result.plans]
    for column in COLUMNS:
        values = {row[column.name] for row in written}
        if column.plain is None or values != {column.plain}:
            justify: Literal["left", "right"] = "right" if column.number else "left"
            rows.add_column(column.name, justify=justify, no_wrap=not column.wraps)
    for ranked, row in zip(result.plans, written, strict=True):
        shown = [row[str(column.header)] for column in rows.columns]
        rows.add_row(*shown, style="bold" if ranked.rank == 1 else None)
    console.print(rows)
    best = result.best.estimate
    why = f" {compare(best, result.plans[1].estimate)}" if len(result.plans) > 1 else ""
    warning = memory_warning(result.plans, cluster)
    room = f" {warning}" if warning else ""
    console.print(f"▶ chosen: {format_count(best.tokens_per_second)} tokens/s.{why}{room}")
    for line in legend(result, cluster):
        console.print(line)
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result.infeasible.items()))
    console.print(
        f"{result.searched:,} layouts in {format_seconds(result.seconds)}, {result.priced:,} simulated; "
        + (f"none can be more than {result.gap:.1%} faster" if result.gap > 0 else "the fastest is proved")
        + (f"; infeasible: {refused}" if refused else "")
    )
    for note in result.best.estimate.notes:
        console.print(f"note: {note}")


def legend(result: SearchResult, cluster: ClusterSpec) -> list[str]:
    """Return what the marks of the ranked table mean, for those that occur."""
    lines = []
    if any(tight(cluster.device, ranked.estimate.memory.peak_bytes) for ranked in result.plans):
        lines.append(f"{TIGHT.strip()} less memory left than fragmentation usually takes")
    if any(ranked.alike for ranked in result.plans):
        lines.append(
            "+n alike: other schedules, chunks or rank orders of the same degrees, no faster or leaner"
        )
    return lines


def cells(ranked: RankedPlan, cluster: ClusterSpec, devices: int) -> dict[str, str]:
    """Return a row of the ranked table by column name."""
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
    if ranked.alike:
        options.append(f"+{len(ranked.alike)} alike")
    share = estimate.memory.peak_bytes / cluster.device.memory_bytes
    return {
        "": ("▶ " if ranked.rank == 1 else "  ") + str(ranked.rank),
        "tp·pp·dp": f"{layout.tp}·{layout.pp}·{layout.dp}",
        "micro": str(layout.microbatch),
        "schedule": layout.schedule + (f" ×{layout.chunks}" if layout.chunks > 1 else ""),
        "options": " ".join(options) or "–",
        "step": format_seconds(estimate.step_seconds),
        "MFU": "–" if estimate.mfu is None else f"{estimate.mfu:.1%}",
        "memory": f"{format_bytes(estimate.memory.peak_bytes)} {share:.0%}"
        + (TIGHT if tight(cluster.device, estimate.memory.peak_bytes) else ""),
        "limited by": ranked.limited_by,
    }


def show_front(front: Sequence[RankedPlan], cluster: ClusterSpec, devices: int) -> None:
    """Print the Pareto front: the fastest layout under ever less memory."""
    rows = table("Fastest under ever less memory")
    for column in COLUMNS[1:-1]:
        rows.add_column(column.name, justify="right" if column.number else "left", no_wrap=not column.wraps)
    for point in front:
        values = cells(point, cluster, devices)
        rows.add_row(*(values[column.name] for column in COLUMNS[1:-1]))
    stdout_console().print(rows)


def show_shifts(shifts: Sequence[Shift]) -> None:
    """Print whether the choice survives slower links and devices."""
    rows = table("If it were slower than assumed")
    for name in ("condition", "chosen", "best then", "verdict"):
        rows.add_column(name, no_wrap=name != "verdict")
    for shift in shifts:
        best = shift.best
        verdict = "still the best" if shift.same else f"another is {shift.regret:.1%} faster: {short(best)}"
        rows.add_row(
            shift.condition,
            format_seconds(shift.chosen_step_seconds),
            format_seconds(best.estimate.step_seconds),
            verdict,
        )
    stdout_console().print(rows)


def bill_line(bill: Bill, devices: int) -> str:
    """Return days, device-hours and price of a training run as one line."""
    text = (
        f"{format_count(bill.tokens)} tokens: {bill.days:,.1f} days on {devices:,} devices,"
        f" {bill.device_hours:,.0f} device-hours"
    )
    return text + ("" if bill.price is None else f", price {bill.price:,.0f}")


def short(ranked: RankedPlan) -> str:
    """Return a layout in a few words."""
    layout = ranked.layout
    chunks = f" ×{layout.chunks}" if layout.chunks > 1 else ""
    return f"{layout.tp}·{layout.pp}·{layout.dp}, microbatch {layout.microbatch}, {layout.schedule}{chunks}"
