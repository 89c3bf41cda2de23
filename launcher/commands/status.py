"""`cuboid status`: where runs stand."""

from __future__ import annotations

import dataclasses
import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.attempts import OUTCOMES, Attempt
from launcher.console import print_json, stdout_console, table
from launcher.run_directory import open_run
from launcher.status import RunStatus, run_status
from profiles.errors import ConfigError
from profiles.units import format_count, format_seconds


def status(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run directory; default: all of --runs.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show where runs stand: phase, step, speed, time left, and every attempt with its reason.

    Works without SLURM's accounting.

    Example: cuboid status runs/first
             cuboid status --json
    """
    if run is not None:
        found = [run_status(open_run(run))]
    else:
        if not runs.is_dir():
            raise ConfigError(f"{runs}: no such folder; give a run directory, or --runs")
        found = [run_status(open_run(job.parent)) for job in sorted(runs.glob("*/job.yaml"))]
    if json:
        print_json({"runs": [dataclasses.asdict(one) for one in found]})
    elif run is not None:
        _show_one(stdout_console(), found[0])
    else:
        _show_all(stdout_console(), found)


def _show_one(out: Console, one: RunStatus) -> None:
    out.print(f"{one.run} ({one.where}): {one.words}", markup=False)
    line = f"step {one.step} of {one.steps}"
    if one.loss is not None:
        line += f", loss {one.loss:.4f}"
    if one.tokens_per_second is not None:
        line += f", {format_count(one.tokens_per_second)} tokens/s"
    if one.seconds_left is not None:
        line += f", {_seconds(one.seconds_left)} left"
    out.print(line, markup=False)
    if not one.attempts:
        return
    grid = table("Attempts")
    for column in ("attempt", "started", "lasted", "nodes", "outcome", "then", "why"):
        grid.add_column(column)
    for attempt in one.attempts:
        grid.add_row(*_row(attempt, under_way=attempt is one.attempts[-1] and one.phase == "running"))
    out.print(grid, markup=False)
    failure = next((a.first_failure for a in reversed(one.attempts) if a.first_failure), None)
    if failure:
        which = "--batch" if failure.rank is None else f"--rank {failure.rank}"
        words = f"{failure.name} failed first: {failure.words()}"
        out.print(f"{words}. Next: cuboid logs {shlex.quote(one.run)} {which}", markup=False, soft_wrap=True)


def _row(attempt: Attempt, *, under_way: bool) -> tuple[str, ...]:
    started = datetime.fromtimestamp(attempt.started).strftime("%m-%d %H:%M:%S")
    lasted = _seconds(attempt.ended - attempt.started) if attempt.ended else ""
    outcome = OUTCOMES.get(attempt.outcome or "", attempt.outcome or ("running" if under_way else "cut off"))
    return (
        attempt.name,
        started,
        lasted,
        attempt.nodes,
        outcome,
        attempt.decision or "",
        attempt.why or (f"{first.name}: {first.words()}" if (first := attempt.first_failure) else ""),
    )


def _show_all(out: Console, found: list[RunStatus]) -> None:
    if not found:
        out.print("No runs. Start one with: cuboid launch PLAN")
        return
    grid = table()
    for column in ("run", "where", "phase", "step", "left", "what"):
        grid.add_column(column)
    for one in found:
        grid.add_row(
            Path(one.run).name,
            one.where,
            one.phase,
            f"{one.step}/{one.steps}",
            _seconds(one.seconds_left),
            one.words,
        )
    out.print(grid, markup=False)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return format_seconds(seconds) if seconds else "0 s"
