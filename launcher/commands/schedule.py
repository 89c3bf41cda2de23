"""`cuboid schedule`: show, compare and export pipeline schedules."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.console import print_json, stderr_console
from profiles.documents import write_text
from profiles.errors import ConfigError

if TYPE_CHECKING:
    from launcher.schedule_request import ScheduleRequest
    from planner.schedules import Timeline


def schedule(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|FILE...", help="Families, several with commas or spaces; or schedule files."
        ),
    ],
    *,
    stages: Annotated[int | None, typer.Option(min=1, help="Pipeline ranks p.")] = None,
    microbatches: Annotated[int | None, typer.Option(min=1, help="Microbatches per step.")] = None,
    chunks: Annotated[
        int | None, typer.Option(min=1, help="Stages per rank; the family's own number if left out.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of an asynchronous family.")] = 1,
    times: Annotated[
        str | None,
        typer.Option(
            help="Seconds of all of a rank's layers for one microbatch, F=1,I=1,W=1 if left out; B = I + W."
            " F=1:2:1:1 gives one per rank."
        ),
    ] = None,
    comm: Annotated[
        str, typer.Option(help="Seconds of one transfer, or latency=1e-5,bytes=4e6,bandwidth=2e10.")
    ] = "0",
    blocking: Annotated[
        bool, typer.Option("--blocking", help="A send holds its rank until the receiver has the data.")
    ] = False,
    memory_limit: Annotated[
        float | None, typer.Option(help="Most microbatches a rank may hold, through all of its layers.")
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Bubble against memory limit, for auto and all families.")
    ] = False,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Bubble fraction over ranks and microbatches.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Run it on local ranks whose stages wait (20 ms, or --times) instead of computing.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="torch.distributed.pipelining's CSV form on stdout.")
    ] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the timelines as a picture.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace.")] = None,
) -> None:
    """Show, compare and export pipeline schedules, ours or from a file.

    Families: naive, gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v,
    pipedream, pipedream-2bw, and auto, which is found for the given times and memory limit.

    Example: cuboid schedule 1f1b,zb-h1,zb-v --stages 4 --microbatches 8 --svg schedules.svg
    """
    from launcher.schedule_options import parse_durations  # noqa: PLC0415 (start-up time of --help)
    from launcher.schedule_request import ScheduleRequest  # noqa: PLC0415

    wanted = [name for argument in names for name in argument.split(",") if name]
    durations = parse_durations(times or ("F=0.02,I=0.02,W=0.02" if measure else "F=1,I=1,W=1"), comm)
    if not wanted:
        raise ConfigError("which schedule? for example: cuboid schedule 1f1b --stages 4 --microbatches 8")
    request = ScheduleRequest(
        ranks=stages,
        microbatches=microbatches,
        chunks=chunks,
        steps=steps,
        durations=durations,
        blocking=blocking,
        memory_limit=memory_limit,
    )
    if frontier:
        _frontier(request, as_json=json, svg=svg)
        return
    if heatmap:
        _heatmap(request, wanted, as_json=json)
        return
    timelines = [request.timeline(name) for name in wanted]
    measured = []
    if measure:
        from launcher.schedule_measure import measure as measure_one  # noqa: PLC0415

        measured = [measure_one(request, timeline) for timeline in timelines]
        timelines = [t for m in measured for t in (m.simulated, m.timeline)]
    if svg is not None:
        from launcher.drawing import svg as draw_svg  # noqa: PLC0415

        write_text(svg, draw_svg(timelines))
        stderr_console().print(f"wrote {svg}")
    if trace is not None:
        from launcher.drawing import chrome_trace  # noqa: PLC0415

        write_text(trace, json_module.dumps(chrome_trace(timelines)))
        stderr_console().print(f"wrote {trace}")
    if measured:
        from launcher.schedule_measure import print_measured  # noqa: PLC0415

        print_json({"measured": [m.data() for m in measured]}) if json else print_measured(measured)
    elif json:
        documents = [request.data(timeline) for timeline in timelines]
        print_json(documents[0] if len(documents) == 1 else {"schedules": documents})
    elif csv:
        from planner.schedules import to_csv  # noqa: PLC0415

        typer.echo(to_csv(_only(timelines, "--csv").schedule), nl=False)
    else:
        from launcher.schedule_views import print_timelines  # noqa: PLC0415

        print_timelines(request, timelines)


def _only(timelines: list[Timeline], option: str) -> Timeline:
    if len(timelines) > 1:
        raise ConfigError(f"{option} takes one schedule, not {len(timelines)}; name one")
    return timelines[0]


def _frontier(request: ScheduleRequest, *, as_json: bool, svg: Path | None) -> None:
    from launcher.drawing.frontier_svg import frontier_svg  # noqa: PLC0415 (start-up time of --help)
    from launcher.schedule_views import print_frontier  # noqa: PLC0415

    found = request.frontier()
    if svg is not None:
        write_text(svg, frontier_svg(found.searched, found.families))
        stderr_console().print(f"wrote {svg}")
    if as_json:
        print_json(found.data())
    else:
        print_frontier(found)


def _heatmap(request: ScheduleRequest, names: list[str], *, as_json: bool) -> None:
    from launcher.schedule_views import print_heatmap  # noqa: PLC0415 (start-up time of --help)

    maps = {name: request.heatmap(name) for name in names}
    if as_json:
        cells = [
            {"schedule": name, "ranks": ranks, "microbatches": microbatches, "bubble_fraction": bubble}
            for name, cells in maps.items()
            for (ranks, microbatches), bubble in cells.items()
        ]
        print_json({"heatmap": cells})
        return
    for name, cells_of in maps.items():
        print_heatmap(name, cells_of)
