"""The predicted and the measured timeline of the same step of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.run_directory import RunDirectory
from planner.plan import Plan
from planner.predicted_step import predicted_step
from planner.schedules import StepTimeline, read_chrome_trace
from profiles.costs import CostTable
from profiles.documents import read_document
from profiles.errors import ConfigError

_SAME = 0.02  # of a step: predictions that differ by less are one


def measured_step(run: RunDirectory) -> StepTimeline | None:
    """Return the step that the run traced, or None while there is no trace.

    Raises:
        ConfigError: when trace.json is no trace of a step.
    """
    path = run.path / "trace.json"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    timeline = read_chrome_trace(text, name=str(path))
    return replace(timeline, title=f"measured: {timeline.title}")


def step_timelines(plan: Plan, run: RunDirectory | None) -> tuple[StepTimeline, ...]:
    """Return what `plan` predicts for a step and, below it, what the run measured.

    The prediction is made anew, from the costs beside the run where there are any; where that gives another
    step time than the plan's own estimate, its title says so.
    """
    measured = measured_step(run) if run else None
    path = run.path / "costs.yaml" if run else None
    costs = read_document(path).read(CostTable) if path is not None and path.exists() else None
    predicted = predicted_step(plan, costs=costs, steps=measured.steps if measured else 1)
    if plan.estimate is not None and predicted.steps == 1:
        before = plan.estimate.step_seconds
        if abs(predicted.seconds - before) > _SAME * before:
            predicted = replace(predicted, title="predicted anew, not as in the plan")
    return (predicted, measured) if measured else (predicted,)


def shares_data(timelines: tuple[StepTimeline, ...]) -> list[dict[str, Any]]:
    """Return busy, wait, idle and step of every rank for machines."""
    return [
        {
            "title": timeline.title,
            "seconds": timeline.seconds,
            "steps": timeline.steps,
            "ranks": [share._asdict() for share in timeline.shares],
        }
        for timeline in timelines
    ]
