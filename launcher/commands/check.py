"""`cuboid check`: prove or refute a schedule file."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.console import counted, print_json, stdout_console


def check(
    file: Annotated[
        str, typer.Argument(help="JSON from `cuboid schedule --json`, or torch's CSV; - is standard input.")
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Prove a schedule, or refute it (exit 3), naming rank, position, cell and the rule it breaks.

    Proved are: every microbatch by count, the order, every cell on its rank, messages alike at both ends, no
    deadlock even with blocking sends and no buffers.

    Example: cuboid check zb-v.csv    (written by cuboid schedule zb-v --stages 4 --microbatches 8 --csv)
    """
    from launcher.schedule_options import read_schedule  # noqa: PLC0415 (start-up time of --help)
    from planner.schedules import ScheduleRefused, check_parsed, peak_activations, weight_versions  # noqa: PLC0415

    parsed = read_schedule(file)
    try:
        check_parsed(parsed)
    except ScheduleRefused as refused:
        if json:
            print_json(
                {
                    "valid": False,
                    "rule": refused.rule,
                    "rank": refused.rank,
                    "position": refused.position,
                    "cell": None if refused.cell is None else str(refused.cell),
                    "message": str(refused),
                }
            )
            raise typer.Exit(refused.exit_code) from None
        raise
    schedule = parsed.schedule
    peaks = peak_activations(schedule)
    if json:
        print_json(
            {
                "valid": True,
                "ranks": schedule.ranks,
                "stages": schedule.stages,
                "microbatches": schedule.microbatches,
                "placement": list(schedule.placement),
                "peak_activations": list(peaks),
                "weight_versions": list(weight_versions(schedule)),
            }
        )
        return
    out = stdout_console()
    out.print(
        f"[green]proved[/]: {counted(schedule.ranks, 'rank')}, {counted(schedule.stages, 'stage')},"
        f" {counted(schedule.microbatches, 'microbatch', 'microbatches')},"
        f" {counted(sum(map(len, schedule.actions)), 'action')}"
    )
    out.print("every microbatch once through every stage, in order, each cell on its rank")
    out.print("messages alike at both ends; no deadlock with blocking sends and no buffers")
    out.print("peak activations per rank: " + " ".join(f"{peak:.4g}" for peak in peaks))
