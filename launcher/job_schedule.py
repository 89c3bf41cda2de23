"""`cuboid launch --schedule FILE`: a job with the schedule that the user wrote."""

from __future__ import annotations

from pathlib import Path

from planner.job import Job
from planner.layout_schedule import read_schedule_file, with_schedule
from planner.schedules import Schedule
from profiles.costs import CostTable
from profiles.documents import read_document
from profiles.errors import ConfigError, FieldError
from profiles.units import format_seconds


def with_schedule_file(job: Job, path: Path, *, costs: Path | None = None) -> Job:
    """Return `job` with the schedule in `path`, proved, matched against the layout, and priced.

    Args:
        job: whose layout's schedule is replaced.
        path: our JSON or torch's CSV.
        costs: a cost table to price with, where it exists.

    Raises:
        ConfigError: when the file cannot be read, or is for other numbers than the layout's.
        ScheduleRefused: when it is refuted, with rank, position and cell.
    """
    from planner.costs import price  # noqa: PLC0415 (numpy only where something is priced)

    schedule: Schedule = read_schedule_file(path)
    plan = job.plan
    try:
        layout = with_schedule(plan.layout, schedule, name=path.name)
    except FieldError as error:
        raise ConfigError(f"layout.{error}") from None
    table = read_document(costs).read(CostTable) if costs is not None and costs.exists() else None
    estimate = price(plan.model, plan.cluster, layout, costs=table)
    return job.model_copy(update={"plan": plan.model_copy(update={"layout": layout, "estimate": estimate})})


def describe(job: Job) -> str:
    """Say what was proved of the job's own schedule, and what a step is expected to take."""
    plan = job.plan
    actions = sum(row.count(",") + 1 for row in plan.layout.actions or ())
    step = format_seconds(plan.estimate.step_seconds) if plan.estimate else "unknown"
    return f"own schedule: {actions} actions proved; expected step {step}"
