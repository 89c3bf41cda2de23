"""`cuboid schedule --measure`: the simulated and the measured cycle of the same schedule, rank by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.console import stderr_console, stdout_console, table
from launcher.drawing.terminal import column_seconds, draw, legend
from launcher.schedule_request import ScheduleRequest
from planner.emulation import Emulation, emulate
from planner.schedules import Action, Kind, Timeline
from profiles.documents import plain
from profiles.errors import ConfigError

_MOST_SECONDS = 20.0  # of one step: more is a mistake in the unit


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One schedule, simulated and run."""

    simulated: Timeline
    timeline: Timeline
    emulation: Emulation

    def data(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {**plain(self.emulation), "error": self.emulation.error}


def measure(request: ScheduleRequest, simulated: Timeline) -> Measured:
    """Run the schedule of `simulated` on local ranks whose stages wait.

    Raises:
        ConfigError: when one step would take very long.
        DependencyError: without torch.
        RunError: when a rank fails.
    """
    schedule = simulated.schedule
    if simulated.cycle > _MOST_SECONDS:
        raise ConfigError(
            f"one step of {schedule.name} takes {simulated.cycle:.4g} s with these --times, too long to"
            " measure; give seconds, for example --times F=0.02,I=0.02,W=0.02"
        )
    stderr_console().print(f"running {schedule.name} on {schedule.ranks} local ranks …")
    emulation = emulate(schedule, request.times(schedule))
    rows: list[list[tuple[float, float, Action]]] = [[] for _ in schedule.actions]
    for cell in emulation.actions:
        action = Action(Kind[cell.action], cell.stage, cell.microbatch)
        rows[cell.rank].append((cell.start, cell.end, action))
    for row in rows:
        row.sort(key=lambda entry: entry[:2])
    ran = replace(
        schedule,
        name=f"{schedule.name}, measured",
        actions=tuple(tuple(action for _, _, action in row) for row in rows),
    )
    timeline = Timeline(
        schedule=ran,
        starts=tuple([start for start, _, _ in row] for row in rows),
        ends=tuple([end for _, end, _ in row] for row in rows),
    )
    return Measured(simulated=simulated, timeline=timeline, emulation=emulation)


def print_measured(measured: Sequence[Measured]) -> None:
    """Print both cycles of every schedule, then rank by rank with both timelines on one scale."""
    out = stdout_console()
    colours = out.color_system is not None and not out.no_color
    grid = table("cycle in milliseconds: stages wait instead of computing")
    for name in ("schedule", "simulated", "measured", "error", "bubble simulated", "bubble measured"):
        grid.add_column(name, justify="left" if name == "schedule" else "right")
    for one in measured:
        found = one.emulation
        grid.add_row(
            found.schedule,
            f"{found.simulated_cycle * 1e3:.1f}",
            f"{found.cycle * 1e3:.1f}",
            f"{found.error:+.1%}",
            f"{found.simulated_bubble_fraction:.1%}",
            f"{found.bubble_fraction:.1%}",
        )
    out.print(grid)
    for one in measured:
        scale = column_seconds([one.simulated, one.timeline], width=out.width)
        for timeline, title in ((one.simulated, "simulated"), (one.timeline, "measured")):
            out.print(f"[bold]{one.emulation.schedule}, {title}[/]")
            for line in draw(timeline, width=out.width, colours=colours, per_column=scale):
                out.print(line, no_wrap=True, crop=True)
        for line in legend([one.simulated], width=out.width, colours=colours):
            out.print(line)
        _print_ranks(one.emulation)


def _print_ranks(emulation: Emulation) -> None:
    grid = table()
    for name in ("rank", "span simulated ms", "span measured ms", "error", "busy ms", "wait ms"):
        grid.add_column(name, justify="right")
    for rank in emulation.ranks:
        error = rank.span / rank.simulated_span - 1 if rank.simulated_span else 0.0
        grid.add_row(
            str(rank.rank),
            f"{rank.simulated_span * 1e3:.1f}",
            f"{rank.span * 1e3:.1f}",
            f"{error:+.1%}",
            f"{rank.busy * 1e3:.1f}",
            f"{rank.wait * 1e3:.1f}",
        )
    stdout_console().print(grid)
