"""`cuboid logs`: the log that tells why, first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.attempts import read_attempts
from launcher.console import print_json, stderr_console, stdout_console
from launcher.run_directory import RunDirectory, open_run
from profiles.errors import ConfigError


def logs(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    rank: Annotated[
        int | None, typer.Option(min=0, help="This rank; default: the one that failed first, else rank 0.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="The log of the batch script instead.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="Lines from the end.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show the end of a log of a run: the rank that failed first, or the one asked for.

    Example: cuboid logs runs/first
             cuboid logs runs/first --rank 3 --lines 200
    """
    directory = open_run(run)
    path, why = _batch_log(directory) if batch else _rank_log(directory, rank)
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    if json:
        print_json({"path": str(path), "why": why, "lines": text})
        return
    stderr_console().print(f"{path}{f' ({why})' if why else ''}", markup=False)
    stdout_console().out("\n".join(text), highlight=False)


def _rank_log(run: RunDirectory, rank: int | None) -> tuple[Path, str]:
    why, asked = "", rank is not None
    if rank is None:
        rank, why = first_failing_rank(run)
    if rank is None or not (asked or (run.logs / f"rank-{rank}.log").exists()):
        return _batch_log(run)[0], why
    path = run.logs / f"rank-{rank}.log"
    if not path.exists():
        known = sorted(p.name for p in run.logs.glob("*.log"))
        raise ConfigError(f"{path}: no such log; there are: {', '.join(known) or 'none yet'}")
    return path, why


def first_failing_rank(run: RunDirectory) -> tuple[int | None, str]:
    """Return the rank whose log tells most, and why: the first that failed in the last attempt that did.

    None when it was no rank but torchrun, which writes into the log of the batch script.
    """
    for attempt in reversed(read_attempts(run)):
        if attempt.first_failure:
            end = attempt.first_failure
            process = "" if end.rank is not None else "torchrun "
            return end.rank, f"{process}failed first, on {end.host}: {end.words()}"
        if attempt.outcome in {"finished", "stopped"}:
            return 0, ""
    failed = [event for event in run.events() if event.get("event") == "failed"]
    if failed:
        first = min(failed, key=lambda event: float(event.get("time", 0)))
        return int(first.get("rank", 0)), f"failed first: {first.get('error')}"
    return 0, ""


def _batch_log(run: RunDirectory) -> tuple[Path, str]:
    found = sorted(
        [*run.logs.glob("slurm-*.log"), *run.logs.glob("torchrun.log")], key=lambda p: p.stat().st_mtime
    )
    if not found:
        raise ConfigError(f"{run.logs}: no log of a batch script; the job has not started")
    return found[-1], ""
