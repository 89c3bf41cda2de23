"""The dry run in words: the script, the placement, where settings are from, the expected cost."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console

from launcher.console import table
from launcher.slurm.cost_report import CostReport
from launcher.slurm.submission import Submission
from profiles.units import format_bytes, format_count, format_seconds

SHOWN_RANKS = 64


def show_submission(out: Console, submission: Submission, report: CostReport) -> None:
    """Print what would be sent, and what to expect of it."""
    out.rule("launch/job.sbatch", align="left")
    out.out(submission.script, highlight=False)
    out.rule("launch/worker.sh", align="left")
    out.out(submission.worker, highlight=False)
    out.rule("where things come from", align="left")
    out.print(_settings(submission), markup=False)
    out.print(_placement(submission), markup=False)
    _axes(out, submission)
    if submission.findings:
        grid = table("Inherited variables that matter")
        for column in ("variable", "value", "what becomes of it"):
            grid.add_column(column)
        for finding in submission.findings:
            grid.add_row(finding.name, finding.value, finding.fate)
        out.print(grid, markup=False)
    for warning in submission.warnings:
        out.print(f"warning: {warning}", markup=False)
    show_costs(out, report)


def show_costs(out: Console, report: CostReport) -> None:
    """Print the dry-run cost report."""
    grid = table("Expected cost")
    grid.add_column("what")
    grid.add_column("value")
    rows: list[tuple[str, str]] = [
        ("step", format_seconds(report.step_seconds)),
        ("throughput", f"{format_count(report.tokens_per_second)} tokens/s"),
        ("MFU", "not known" if report.mfu is None else f"{report.mfu:.1%}"),
        ("memory", _memory(report)),
        (f"time for {report.steps} steps", format_seconds(report.seconds)),
        ("device-hours", f"{report.device_hours:.3g} on {report.devices} devices"),
        ("price", _price(report.price)),
        ("expected start", report.expected_start),
    ]
    for row in rows:
        grid.add_row(*row)
    out.print(grid, markup=False)
    for note in report.notes:
        out.print(f"note: {note}", markup=False)


def submission_data(submission: Submission, report: CostReport) -> dict[str, Any]:
    """Return the dry run as plain data, for --json."""
    return {
        "run": str(submission.run),
        "command": list(submission.command),
        "submissions": submission.submissions,
        "script": submission.script,
        "worker": submission.worker,
        "placement": [
            {"rank": place.rank, **place.coordinates._asdict(), "node": place.node, "device": place.device}
            for place in submission.placement.ranks
        ],
        "axes": [dataclasses.asdict(axis) for axis in submission.placement.axes],
        "settings": [
            {"name": name, "value": value, "origin": origin}
            for name, value, origin in submission.settings.rows()
        ],
        "environment": [dataclasses.asdict(finding) for finding in submission.findings],
        "warnings": list(submission.warnings),
        "cost": dataclasses.asdict(report),
    }


def _price(price: float | None) -> str:
    if price is None:
        return "give price_per_device_hour"
    return f"{price:,.2f}" if price >= 1 else f"{price:.2g}"


def _memory(report: CostReport) -> str:
    room = report.device_bytes - report.peak_bytes
    verdict = "free" if room >= 0 else "TOO MUCH"
    used = f"{format_bytes(report.peak_bytes)} of {format_bytes(report.device_bytes)}"
    return f"{used}, {format_bytes(abs(room))} {verdict}"


def _settings(submission: Submission) -> Any:
    grid = table("Settings")
    for column in ("setting", "value", "origin"):
        grid.add_column(column)
    for row in submission.settings.rows():
        grid.add_row(*row)
    return grid


def _placement(submission: Submission) -> Any:
    grid = table("Placement")
    for column in ("rank", "tp", "dp", "pp", "node", "device"):
        grid.add_column(column, justify="right")
    ranks = submission.placement.ranks
    for place in ranks[:SHOWN_RANKS]:
        where = place.coordinates
        cells = (place.rank, where.tp, where.dp, where.pp, place.node, place.device)
        grid.add_row(*map(str, cells))
    if len(ranks) > SHOWN_RANKS:
        grid.add_row("…", *[""] * 5)
        grid.caption = f"{SHOWN_RANKS} of {len(ranks)} ranks; --json lists all"
    return grid


def _axes(out: Console, submission: Submission) -> None:
    for axis in submission.placement.axes:
        if axis.degree > 1:
            across = f"across {axis.nodes_per_group} nodes" if axis.nodes_per_group > 1 else "inside a node"
            out.print(f"{axis.axis} {axis.degree}: {across}, over {axis.link}", markup=False)
