"""`cuboid calibrate`: fold measured runs into costs.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.console import print_json, stderr_console, stdout_console, table
from launcher.run_directory import open_run
from profiles.costs import CostTable
from profiles.documents import plain, read_document, write_yaml
from profiles.errors import ConfigError
from profiles.units import format_seconds

if TYPE_CHECKING:
    from planner.calibrate import CalibrationResult, MeasuredRun


def calibrate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run directories that hold a record.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the calibrated costs go.")] = Path(
        "costs.yaml"
    ),
    costs: Annotated[
        Path | None,
        typer.Option(help="The costs to start from [the output if it exists, else those of the first run]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fold what runs measured into a cost table, so that the next plan is better; show by how much.

    Every run is also predicted from the other runs alone: that error is what a new layout can expect.

    Example: cuboid calibrate runs/first runs/second -o costs.yaml
    """
    from planner.calibrate import calibrate as fit  # noqa: PLC0415 (numpy only here)

    start = costs or (output if output.exists() else runs[0] / "costs.yaml")
    if not start.exists():
        raise ConfigError(
            f"{start}: no costs to start from; give --costs FILE, or measure with `cuboid bench`"
        )
    result = fit(measured_runs(runs), read_document(start).read(CostTable))
    write_yaml(output, result.costs)
    if json:
        print_json(_document(result, output))
        return
    _print(result)
    stderr_console().print(f"wrote {output}", markup=False)


def measured_runs(paths: Sequence[Path]) -> list[MeasuredRun]:
    """Read the plans and records of run directories; one that is named twice counts once.

    Raises:
        ConfigError: for a folder that is no run, or has not measured anything yet.
    """
    from planner.calibrate import MeasuredRun  # noqa: PLC0415

    found = []
    for path in {path.resolve(): path for path in paths}.values():
        run = open_run(path)
        record = run.record()
        if record is None:
            raise ConfigError(f"{path}: no record.json; the run has not finished a step that counts")
        found.append(MeasuredRun(name=str(path), plan=run.plan(), record=record))
    return found


def _document(result: CalibrationResult, output: Path) -> dict[str, Any]:
    assert result.costs.calibration is not None
    return {
        "output": str(output),
        "calibration": plain(result.costs.calibration),
        "runs": [
            {
                "name": row.name,
                "layout": plain(row.layout),
                "measured_seconds": row.measured_seconds,
                "before_seconds": row.before_seconds,
                "after_seconds": row.after_seconds,
                "held_out_seconds": row.held_out_seconds,
            }
            for row in result.rows
        ],
        "skipped": result.skipped,
    }


def _print(result: CalibrationResult) -> None:
    calibration = result.costs.calibration
    assert calibration is not None
    console = stdout_console()
    grid = table("Step time by run")
    grid.add_column("run")
    for name in ("measured", "before", "after", "held out"):
        grid.add_column(name, justify="right")
    for row in result.rows:
        predictions = (row.before_seconds, row.after_seconds, row.held_out_seconds)
        cells = [_predicted(seconds, row.measured_seconds) for seconds in predictions]
        grid.add_row(row.name, format_seconds(row.measured_seconds), *cells)
    console.print(grid)
    factors = ", ".join(f"{name} × {factor:.3f}" for name, factor in calibration.factors.items())
    overhead = format_seconds(result.costs.step_overhead_seconds or 0.0)
    console.print(f"Factors: {factors}; {overhead} a step beside", markup=False)
    told = f"Mean error {calibration.error_before:.1%} before, {calibration.error_after:.1%} after"
    if calibration.error_held_out is None:
        told += "; with a second run it can be told for a layout that was not seen"
    else:
        told += f", {calibration.error_held_out:.1%} for a run that was not seen"
    console.print(told, markup=False)
    for name, reason in result.skipped.items():
        console.print(f"  · {name} was left out: {reason}", markup=False)


def _predicted(seconds: float | None, measured: float) -> str:
    if seconds is None:
        return "–"
    return f"{format_seconds(seconds)} ({seconds / measured - 1:+.1%})"
