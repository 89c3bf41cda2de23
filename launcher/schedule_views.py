"""What `cuboid schedule` prints for people: comparison, timelines, frontier, heat map."""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from rich.text import Text

from launcher.console import stdout_console, table
from launcher.drawing.palette import heat
from launcher.drawing.terminal import column_seconds, draw, legend
from launcher.schedule_request import Frontier, ScheduleRequest
from planner.schedules import Timeline, weight_versions

_NARROW = 80  # columns; below, tables are written closer
_FRONTIER = 96  # columns that its table takes with its longest bars
_LONGEST_NAME = 16  # of a family


def print_timelines(request: ScheduleRequest, timelines: list[Timeline]) -> None:
    """Print a comparison and the stacked timelines on one scale."""
    out = stdout_console()
    colours = out.color_system is not None and not out.no_color
    grid = table()
    for name in ("schedule", "stages", "cycle", "bubble", "peak"):
        grid.add_column(name, justify="left" if name == "schedule" else "right", overflow="fold")
    asynchronous = any(not timeline.schedule.flush for timeline in timelines)
    if asynchronous:
        grid.add_column("weights", justify="right")
        grid.add_column("steady\ncycle", justify="right")
    for column in grid.columns[1:]:  # in a narrow terminal only paths are broken
        column.min_width = max(map(len, str(column.header).split()))
    grid.columns[0].min_width = min(_LONGEST_NAME, max(len(t.schedule.name) for t in timelines))
    if out.width < _NARROW:
        grid.padding = 0
    for timeline in timelines:
        schedule = timeline.schedule
        row = [
            schedule.name,
            str(schedule.stages),
            f"{timeline.cycle:.6g}",
            f"{timeline.bubble_fraction:.1%}",
            f"{max(timeline.peak_activations):.4g}",
        ]
        if asynchronous:
            steady = request.steady(timeline)
            versions = weight_versions(schedule) if steady is None else steady.weight_versions
            row += [str(max(versions)), "" if steady is None else f"{steady.cycle:.6g}"]
        grid.add_row(*row)
    out.print(grid)
    scale = column_seconds(timelines, width=out.width)
    for timeline in timelines:
        if len(timelines) > 1:
            out.print(f"[bold]{timeline.schedule.name}[/]")
        for line in draw(timeline, width=out.width, colours=colours, per_column=scale):
            out.print(line, no_wrap=True, crop=True)
    for line in legend(timelines, width=out.width, colours=colours):
        out.print(line)
    if len(timelines) == 1:
        _print_ranks(timelines[0])


def _print_ranks(timeline: Timeline) -> None:
    """Print where each rank's cycle goes."""
    if len(timeline.busy) > 64:
        return
    grid = table()
    for name in ("rank", "stages", "busy", "wait", "idle", "peak"):
        grid.add_column(name, justify="right")
    for rank, peak in enumerate(timeline.peak_activations):
        grid.add_row(
            str(rank),
            " ".join(map(str, timeline.schedule.stages_of(rank))),
            f"{timeline.busy[rank]:.6g}",
            f"{timeline.wait[rank]:.6g}",
            f"{timeline.idle[rank]:.6g}",
            f"{peak:.4g}",
        )
    stdout_console().print(grid)


def print_frontier(frontier: Frontier) -> None:
    """Print the least bubble for each memory limit, beside the families that hold as much."""
    out = stdout_console()
    grid = table("least bubble for each memory limit (microbatches per rank)")
    for name in ("limit", "cycle", "bubble", "", "families at this memory"):
        grid.add_column(name, justify="left" if name in ("", "families at this memory") else "right")
    worst = max(point.bubble_fraction for point in frontier.searched) or 1.0
    lower, longest = 0.0, 12 if out.width < _FRONTIER else 28
    for point in frontier.searched:
        families = [
            f"{family.name} {family.bubble_fraction:.1%}"
            for family in frontier.families
            if lower < family.peak <= point.limit + 1e-9
        ]
        lower = point.limit + 1e-9
        bar = "█" * round(longest * point.bubble_fraction / worst)
        grid.add_row(
            f"{point.limit:.4g}",
            f"{point.cycle:.6g}",
            f"{point.bubble_fraction:.1%}",
            Text(bar, Style(color="blue")),
            ", ".join(families),
        )
    out.print(grid)


def print_heatmap(name: str, cells: Mapping[tuple[int, int], float | None]) -> None:
    """Print bubble fractions, ranks down and microbatches to the right."""
    out = stdout_console()
    columns = sorted({microbatches for _, microbatches in cells})
    grid = table(f"{name}: bubble fraction")
    if out.width < _NARROW:
        grid.padding = 0
    grid.add_column("p \\ m", justify="right")
    for microbatches in columns:
        grid.add_column(str(microbatches), justify="right")
    for ranks in sorted({ranks for ranks, _ in cells}):
        grid.add_row(str(ranks), *(_heat(cells[ranks, microbatches]) for microbatches in columns))
    out.print(grid)


def _heat(bubble: float | None) -> Text:
    if bubble is None:
        return Text("–", style="dim")
    return Text(f"{bubble:4.0%}", Style(color="#101010", bgcolor=heat(bubble)))
