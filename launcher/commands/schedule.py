"""`cuboid schedule`: show, compare and export pipeline schedules."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.console import print_json, stderr_console
from launcher.option_group import option_groups
from launcher.schedule_flags import Numbers, Output
from profiles.documents import write_text
from profiles.errors import ConfigError

if TYPE_CHECKING:
    from launcher.schedule_measure import Measured
    from launcher.schedule_request import ScheduleRequest
    from planner.schedules import Timeline


@option_groups(numbers=Numbers, output=Output)
def schedule(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|FILE...",
            help="Families, several with commas or spaces; or schedule files, which --times are for too.",
        ),
    ],
    *,
    numbers: Numbers,
    output: Output,
) -> None:
    """Show, compare and export pipeline schedules, ours or from a file.

    Families: naive, gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v,
    pipedream, pipedream-2bw, and auto, which is found for the given times and memory limit.

    Cycle: the longest span of one rank, first action to last; what a step costs when steps follow each other
    without a barrier. Bubble: the share of the cycle in which ranks do not compute. Peak: most microbatches
    held, from F to the end of B or W, through all of a rank's layers. Of asynchronous families, whose steps
    overlap: weights, the most versions a rank keeps; steady cycle, what a step costs in the long run.

    Example: cuboid schedule 1f1b,zb-h1,zb-v --stages 4 --microbatches 8 --svg schedules.svg
    """
    from launcher.schedule_options import parse_names  # noqa: PLC0415 (start-up time of --help)

    if output.measure and numbers.blocking:
        raise ConfigError("--measure runs sends that are buffered; leave --blocking out")
    wanted = parse_names(names)
    request = _request(numbers, measure=output.measure)
    request.require_possible(wanted)
    if output.frontier:
        _frontier(request, wanted, output)
        return
    if output.heatmap:
        _heatmap(request, wanted, output)
        return
    timelines = [request.timeline(name) for name in wanted]
    measured: list[Measured] = []
    if output.measure:
        from launcher.schedule_measure import measure  # noqa: PLC0415 (start-up time of --help)

        measured = [measure(request, timeline) for timeline in timelines]
        timelines = [t for m in measured for t in (m.simulated, m.timeline)]
    _write(timelines, output)
    if measured:
        from launcher.schedule_measure import print_measured  # noqa: PLC0415

        print_json({"measured": [m.data() for m in measured]}) if output.json else print_measured(measured)
        return
    _print(request, timelines, output)


def _request(numbers: Numbers, *, measure: bool) -> ScheduleRequest:
    from launcher.schedule_options import parse_durations  # noqa: PLC0415 (start-up time of --help)
    from launcher.schedule_request import ScheduleRequest  # noqa: PLC0415

    usual = "F=0.02,I=0.02,W=0.02" if measure else "F=1,I=1,W=1"
    times = usual if numbers.times is None else numbers.times
    return ScheduleRequest(
        ranks=numbers.stages,
        microbatches=numbers.microbatches,
        chunks=numbers.chunks,
        steps=numbers.steps,
        durations=parse_durations(times, numbers.comm),
        blocking=numbers.blocking,
        memory_limit=numbers.memory_limit,
    )


def _write(timelines: list[Timeline], output: Output) -> None:
    """Write the files that were asked for."""
    if output.svg is not None:
        from launcher.drawing import svg  # noqa: PLC0415 (start-up time of --help)

        _save(output.svg, svg(timelines))
    if output.trace is not None:
        from planner.schedules import chrome_trace, simulated_step  # noqa: PLC0415

        _save(output.trace, json_module.dumps(chrome_trace(list(map(simulated_step, timelines)))))


def _save(path: Path, text: str) -> None:
    write_text(path, text)
    stderr_console().print(f"wrote {path}", markup=False)


def _print(request: ScheduleRequest, timelines: list[Timeline], output: Output) -> None:
    if output.json:
        documents = [request.data(timeline) for timeline in timelines]
        print_json(documents[0] if len(documents) == 1 else {"schedules": documents})
    elif output.csv:
        from planner.schedules import to_csv  # noqa: PLC0415 (start-up time of --help)

        typer.echo(to_csv(_only(timelines, "--csv").schedule), nl=False)
    else:
        from launcher.schedule_views import print_timelines  # noqa: PLC0415

        print_timelines(request, timelines)


def _only(timelines: list[Timeline], option: str) -> Timeline:
    if len(timelines) > 1:
        raise ConfigError(f"{option} takes one schedule, not {len(timelines)}; name one")
    return timelines[0]


def _frontier(request: ScheduleRequest, names: list[str], output: Output) -> None:
    from launcher.drawing.frontier_svg import frontier_svg  # noqa: PLC0415 (start-up time of --help)
    from launcher.schedule_views import print_frontier  # noqa: PLC0415

    found = request.frontier(names)
    if output.svg is not None:
        _save(output.svg, frontier_svg(found.searched, found.families))
    if output.json:
        print_json(found.data())
    else:
        print_frontier(found)


def _heatmap(request: ScheduleRequest, names: list[str], output: Output) -> None:
    from launcher.drawing.heatmap_svg import heatmap_svg  # noqa: PLC0415 (start-up time of --help)
    from launcher.schedule_views import print_heatmap  # noqa: PLC0415

    maps = {name: request.heatmap(name) for name in names}
    if output.svg is not None:
        _save(output.svg, heatmap_svg(maps))
    if output.json:
        cells = [
            {"schedule": name, "ranks": ranks, "microbatches": microbatches, "bubble_fraction": bubble}
            for name, cells in maps.items()
            for (ranks, microbatches), bubble in cells.items()
        ]
        print_json({"heatmap": cells})
        return
    for name, cells_of in maps.items():
        print_heatmap(name, cells_of)
