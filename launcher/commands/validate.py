"""`cuboid validate`: predictions against published runs."""

from __future__ import annotations

from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.console import print_json, stderr_console, stdout_console, table
from profiles.errors import ConfigError
from profiles.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from planner.validate import Row

MOST_NAMES = 20  # of records that are skipped for the same reason


def validate(
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE_OR_FOLDER", help="Published records; default: the table that ships here."),
    ] = None,
    leave_one_source_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-source-out",
            help="Also predict every source with constants fitted to all others (about a minute).",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare predictions with published runs, row by row, and sum up the errors.

    Rows outside the model (fp8, mixture of experts, offloading, context parallelism …) are listed as skipped,
    with the reason. Nothing is fitted to a row: devices and links have one set of constants.

    --leave-one-source-out says what a cluster that nothing was fitted to should expect: every source is
    predicted with constants fitted again to all other sources.

    Example: cuboid validate
             cuboid validate --records my-runs.yaml --json
    """
    from planner.validate import compare  # noqa: PLC0415 (numpy; --help must not pay for it)
    from planner.validate_case import Case  # noqa: PLC0415
    from planner.validate_records import read_cases  # noqa: PLC0415
    from planner.validate_refit import leave_one_out  # noqa: PLC0415
    from planner.validate_summary import summarise  # noqa: PLC0415

    source = records or Path(str(resources.files("profiles") / "published"))
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder")
    stderr_console().print(f"[dim]pricing the records of {source}[/dim]")
    items = list(read_cases(source))
    rows = [compare(item) for item in items]
    left_out = None
    if leave_one_source_out:
        stderr_console().print("[dim]fitting the constants again without each source[/dim]")
        left_out = leave_one_out([item for item in items if isinstance(item, Case)])
    summary = summarise(rows, left_out)
    if json:
        print_json({"rows": [_plain(row) for row in rows], "summary": summary})
        return
    _show_rows(rows)
    _show_summary(summary)
    _show_skipped(rows)


def _plain(row: Row) -> dict[str, Any]:
    data = asdict(row)
    del data["contest"]
    return data


def _show_rows(rows: list[Row]) -> None:
    """Print a line a row; what was assumed is numbered, and said once below."""
    from rich.markup import escape  # noqa: PLC0415 (start-up time)

    out = stdout_console()
    view = table("Step time and memory, predicted against measured")
    for name in ("measured", "predicted", "error", "memory", "predicted", "error"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("record, and what was assumed (below)", overflow="fold")
    notes: dict[str, int] = {}
    for row in rows:
        if row.skipped is None:
            said = row.assumed + ((row.verdict,) if row.verdict != "ok" else ())
            numbers = sorted(notes.setdefault(text, len(notes) + 1) for text in said)
            view.add_row(
                _seconds(row.measured_step_seconds),
                _seconds(row.predicted_step_seconds),
                _percent(row.error),
                _bytes(row.measured_peak_bytes),
                _bytes(row.predicted_peak_bytes),
                _percent(row.memory_error),
                escape(row.id) + (f" ({', '.join(map(str, numbers))})" if numbers else ""),
            )
    out.print(view)
    for text, number in notes.items():
        out.print(f"{number:4}: {text}", markup=False, highlight=False)


def _show_summary(summary: dict[str, Any]) -> None:
    out = stdout_console()
    view = table("Step-time error")
    for name in ("group", "rows", "mean", "median", "p90", "worst", "bias"):
        view.add_column(name, justify="left" if name == "group" else "right")
    groups = {"all": summary}
    for key in ("by_source", "by_gpu", "by_model_class"):
        groups |= summary[key]
    left_out = summary["leave_one_source_out"]
    if left_out:
        groups |= {f"left out · {name}": stats for name, stats in left_out["by_source"].items()}
        groups["left out · all"] = left_out
    groups |= {f"memory · {name}": stats for name, stats in {"all": summary["memory"]}.items()}
    groups |= {f"memory · {name}": stats for name, stats in summary["memory"]["by_source"].items()}
    for name, stats in groups.items():
        if stats["count"]:
            view.add_row(
                name,
                str(stats["count"]),
                *(_percent(stats[key]) for key in ("mean", "median", "p90", "worst", "bias")),
            )
    out.print(view)
    for source, figures in summary["ranking"].items():
        out.print(
            f"{source}: {figures['contests']} contests of layouts, Kendall's tau {figures['tau']:.2f},"
            f" regret of the pick {figures['regret']:.1%}"
        )
    feasibility = summary["feasibility"]
    out.print(
        f"{feasibility['checked']} runs priced: {len(feasibility['wrongly_infeasible'])} that ran called"
        f" infeasible, {len(feasibility['wrongly_feasible'])} that ran out of memory called feasible"
    )
    known = summary["reasons"]
    for verdict in ("wrongly_infeasible", "wrongly_feasible"):
        for name in feasibility[verdict]:
            out.print(f"{verdict.replace('_', ' ')}: {name}{_because(known.get(name))}")
    for name, error in sorted(summary["resisting"].items(), key=lambda pair: -abs(pair[1])):
        out.print(f"off by more than a quarter: {name} {error:+.0%}{_because(known.get(name))}")


def _show_skipped(rows: list[Row]) -> None:
    """Print why records were skipped, and which."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.skipped is not None:
            names.setdefault(row.skipped, []).append(row.id)
    for reason, skipped in names.items():
        more = len(skipped) - MOST_NAMES
        listed = ", ".join(skipped[:MOST_NAMES]) + (f" and {more} more (--json has all)" if more > 0 else "")
        stdout_console().print(f"skipped {len(skipped)}: {reason}: {listed}", markup=False)


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _seconds(value: float | None) -> str:
    """Seconds, however many, so that rows can be compared."""
    return "" if value is None else format_seconds(value) if value < 100 else f"{value:.0f} s"


def _bytes(value: float | None) -> str:
    return "" if value is None else format_bytes(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"
