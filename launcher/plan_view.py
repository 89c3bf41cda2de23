"""The ranked table of a search, why its first row won, and what else was asked, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from launcher.console import stdout_console, table
from planner.costs.memory import tight
from profiles.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from planner.bill import Bill
    from planner.outlook import Shift
    from planner.search import RankedPlan, SearchResult
    from profiles.cluster import ClusterSpec
    from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the ranked table; one whose every value is `plain` is left out.

    On a narrow console the values of those `below` stand under the schedule.
    """

    name: str
    plain: str | None = None
    number: bool = False
    below: bool = False


TIGHT = " !"
CHOSEN = "▶ "

COLUMNS = (
    Column(name="", plain=""),
    Column(name="tp·pp·dp"),
    Column(name="micro"),
    Column(name="schedule"),
    Column(name="options", plain="–", below=True),
    Column(name="step", number=True),
    Column(name="MFU", number=True),
    Column(name="memory", number=True),
    Column(name="limited by", plain="", below=True),
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
    title = (
        f"{model.name} ({format_count(model.parameters)} parameters) on {devices} × {cluster.device.name},"
        f" global batch {result.best.layout.global_batch}"
    )
    console.print(ranking(title, [cells(ranked, cluster, devices) for ranked in result.plans], console))
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


def ranking(title: str, rows: Sequence[Mapping[str, str]], console: Console) -> Table:
    """Return the table of `rows`, each as of `cells`, in the widest form that fits the console."""
    columns = [c for c in COLUMNS if c.plain is None or any(row[c.name] != c.plain for row in rows)]
    for close in (False, True):
        wide = _grid(title, columns, rows, close=close)
        if console.measure(wide, options=console.options.update(width=10_000)).maximum <= console.width:
            return wide
    beside = [column for column in columns if not column.below]
    below = [column for column in columns if column.below]
    stacked = []
    for row in rows:
        lines = [row["schedule"], *(row[c.name] for c in below if row[c.name] != c.plain)]
        stacked.append({**row, "schedule": "\n".join(lines)})
    return _grid(title, beside, stacked, heading="\n".join(["schedule", *(column.name for column in below)]))


def _grid(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, str]],
    *,
    heading: str = "schedule",
    close: bool = True,
) -> Table:
    grid = table(title)
    grid.collapse_padding = close
    for column in columns:
        name = heading if column.name == "schedule" else column.name
        justify: Literal["left", "right"] = "right" if column.number else "left"
        grid.add_column(name, justify=justify, no_wrap=column.name != "schedule")
    for row in rows:
        chosen = row[""].startswith(CHOSEN)
        grid.add_row(*(row[column.name] for column in columns), style="bold" if chosen else None)
    return grid


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
        "": (CHOSEN if ranked.rank == 1 else "  ") + str(ranked.rank),
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
    console = stdout_console()
    rows = [cells(point, cluster, devices) | {"": "", "limited by": ""} for point in front]
    console.print(ranking("Fastest under ever less memory", rows, console))


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
