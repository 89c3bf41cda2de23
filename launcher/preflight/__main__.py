"""`python -m launcher.preflight check|judge`: the halves of a pre-flight, as the batch script calls them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.console import stdout_console, table
from launcher.preflight.facts import gather, read_facts, write_facts
from launcher.preflight.judge import Trouble, everywhere, exclude_list, judge, judge_collective, verdict
from launcher.run_directory import open_run
from profiles.documents import write_text
from profiles.errors import CuboidError, PreflightError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one half and return its exit code: 3 when a node is not fit."""
    parser = argparse.ArgumentParser(prog="launcher.preflight")
    parser.add_argument("half", choices=("check", "judge"))
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hosts", default="")
    parser.add_argument("--collective", action="store_true", help="an all-reduce was measured, too")
    options = parser.parse_args(arguments)
    try:
        if options.half == "check":
            write_facts(options.folder, gather(options.run, options.folder))
            return 0
        hosts = [host for host in options.hosts.split(",") if host]
        return _judge(options.run, options.folder, hosts, collective=options.collective)
    except CuboidError as error:
        sys.stderr.write(f"pre-flight: {error}\n")
        return error.exit_code


def _judge(run: Path, folder: Path, hosts: list[str], *, collective: bool) -> int:
    token = (folder / "token").read_text(encoding="utf-8").strip()
    short = [host.split(".")[0] for host in hosts]
    job = open_run(run).job()
    troubles = judge(job, short, read_facts(folder), token=token)
    if collective:
        path = folder / "collective.result"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        troubles += judge_collective(job, short, result)
    if troubles:
        _show(troubles)
    bad = exclude_list(short, troubles)
    why = verdict(short, troubles)
    write_text(folder / "exclude", bad + "\n")
    write_text(folder / "why", why + "\n")
    if not why:
        return 0
    if everywhere(short, troubles):
        sys.stdout.write(
            "What is wrong on every node is a setting, or the plan: other nodes would not help\n"
        )
    if bad:
        quoted = shlex.quote(str(run))
        sys.stdout.write(
            f"Leave the bad nodes out: cuboid launch {quoted} --on slurm --resume --exclude {bad}\n"
        )
    return PreflightError.exit_code


def _show(troubles: Sequence[Trouble]) -> None:
    grid = table("Pre-flight")
    for column in ("node", "check", "", "what"):
        grid.add_column(column)
    for trouble in troubles:
        grid.add_row(trouble.host, trouble.check, trouble.severity, trouble.message)
    stdout_console().print(grid, markup=False)


if __name__ == "__main__":
    sys.exit(main())
