"""`cuboid report`: what was predicted, what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.compare import Row, compare
from launcher.console import print_json, stderr_console, stdout_console, table
from launcher.run_directory import RunDirectory, open_run
from launcher.run_timelines import shares_data, step_timelines
from planner.estimate import Estimate
from planner.plan import Plan, load_plan
from planner.schedules import StepTimeline
from profiles.documents import write_text


def report(
    source: Annotated[Path, typer.Argument(metavar="PLAN|RUN", help="plan.yaml or a run directory.")],
    html: Annotated[Path | None, typer.Option(help="Write a page that needs no network.")] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the predicted and the measured timeline of a step.")
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Print the predicted and the measured timeline of a step.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare predicted with measured step time, memory and bubble of a run; show a plan's prediction.

    The timelines are of the step that the run traced (job.trace_step): per rank, busy + wait + idle = step.

    Example: cuboid report runs/demo --timeline --html report.html
    """
    run = open_run(source) if source.is_dir() else None
    plan = run.plan() if run else load_plan(source)
    measured = run.record() if run else None
    predicted = plan.estimate or price_plan(plan, run)
    rows = compare(predicted, measured)
    if html:
        from launcher.html_report import render_report  # noqa: PLC0415 (Jinja2 only where a page is written)

        write_text(html, render_report(plan, predicted, run))
        stderr_console().print(f"wrote {html}", markup=False)
    if svg:
        from launcher.drawing.step_svg import step_svg  # noqa: PLC0415 (only where a picture is drawn)

        write_text(svg, step_svg(step_timelines(plan, run)))
        stderr_console().print(f"wrote {svg}", markup=False)
    if json:
        document = _document(source, plan, predicted, measured, rows)
        print_json(document | ({"timelines": shares_data(step_timelines(plan, run))} if timeline else {}))
        return
    show_rows(rows, title=_title(plan, run))
    if timeline:
        _show_timelines(step_timelines(plan, run))
    _show_notes(predicted, measured)


def price_plan(plan: Plan, run: RunDirectory | None) -> Estimate:
    """Price a plan that carries no estimate, from the costs beside the run where there are any."""
    from planner.costs import price  # noqa: PLC0415 (numpy only where a plan has no estimate)
    from profiles.costs import CostTable  # noqa: PLC0415
    from profiles.documents import read_document  # noqa: PLC0415

    costs = run.path / "costs.yaml" if run else None
    measured = read_document(costs).read(CostTable) if costs and costs.exists() else None
    return price(plan.model, plan.cluster, plan.layout, costs=measured)


def show_rows(rows: tuple[Row, ...], *, title: str) -> None:
    """Print the comparison as a table; columns without a number are left out."""
    grid = table(title)
    measured = any(row.measured is not None for row in rows)
    grid.add_column("")
    grid.add_column("predicted", justify="right")
    if measured:
        grid.add_column("measured", justify="right")
        grid.add_column("error", justify="right")
    for row in rows:
        cells = row.cells()
        grid.add_row(*(cells if measured else cells[:2]), style="dim" if row.part else None)
    stdout_console().print(grid)


def _title(plan: Plan, run: RunDirectory | None) -> str:
    layout = plan.layout
    name = run.path if run else plan.model.name
    return f"{name}: tp {layout.tp} × pp {layout.pp} × dp {layout.dp}, {layout.schedule}"


def _show_timelines(timelines: tuple[StepTimeline, ...]) -> None:
    from launcher.drawing.step_terminal import draw_steps  # noqa: PLC0415 (only here)

    out = stdout_console()
    colours = out.color_system is not None and not out.no_color
    for line in draw_steps(timelines, width=out.width, colours=colours):
        out.print(line, no_wrap=True, crop=True)


def _show_notes(predicted: Estimate, measured: Estimate | None) -> None:
    out = stdout_console()
    for label, estimate in (("predicted", predicted), ("measured", measured)):
        for note in estimate.notes if estimate else ():
            out.print(f"{label}: {note}", markup=False)


def _document(
    source: Path, plan: Plan, predicted: Estimate, measured: Estimate | None, rows: tuple[Row, ...]
) -> dict[str, Any]:
    return {
        "source": str(source),
        "layout": plan.layout.model_dump(mode="json"),
        "predicted": predicted.model_dump(mode="json"),
        "measured": measured.model_dump(mode="json") if measured else None,
        "rows": [row.data() for row in rows],
    }
