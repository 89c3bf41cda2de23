"""The report page: one file, no network, everything a reader asks of a plan or a run."""

from __future__ import annotations

from importlib import resources

import jinja2

from launcher.charts import bar_chart, line_chart
from launcher.compare import compare
from launcher.console import counted
from launcher.drawing.step_svg import step_svg
from launcher.run_directory import RunDirectory
from launcher.run_timelines import step_timelines
from planner.estimate import Estimate
from planner.plan import Plan
from profiles.units import format_bytes, format_seconds

_MEMORY_PARTS = ("weights", "gradients", "optimizer", "activations", "workspace")


def environment() -> jinja2.Environment:
    """Return the environment of all pages: text escaped, unknown names refused."""

    def load(name: str) -> str | None:
        file = resources.files("templates") / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(load), autoescape=True, undefined=jinja2.StrictUndefined
    )


def render_report(plan: Plan, predicted: Estimate, run: RunDirectory | None) -> str:
    """Return the page of a plan, or of a run with what it measured."""
    measured = run.record() if run else None
    metrics = run.trajectory() if run else []
    layout = plan.layout
    count = counted(layout.microbatches, "microbatch", "microbatches")
    estimates = [("predicted", predicted), *([("measured", measured)] if measured else [])]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=run.name if run else plan.model.name,
            lead=(
                f"{plan.model.name} on {layout.world_size} × {plan.cluster.device.name}: tp {layout.tp} ×"
                f" pp {layout.pp} × dp {layout.dp}, {layout.schedule}, {count} of"
                f" {layout.microbatch}, global batch {layout.global_batch}, {layout.precision}"
            ),
            rows=compare(predicted, measured),
            measured=measured is not None,
            times=bar_chart(
                "Seconds of one step by part",
                [(label, estimate.time.model_dump()) for label, estimate in estimates],
                format_seconds,
            ),
            memory=bar_chart("Bytes by class", _memory_rows(estimates), format_bytes),
            loss=line_chart(
                "Loss at each step", [(m["step"], m["loss"]) for m in metrics], lambda value: f"{value:.2f}"
            ),
            speed=line_chart(
                "Seconds of each step; the dashed line is the prediction",
                [(m["step"], m["step_seconds"]) for m in metrics],
                format_seconds,
                mark=predicted.step_seconds,
                from_zero=True,
            ),
            timelines=_timelines(plan, run),
            notes=[note for _, estimate in estimates for note in estimate.notes],
            provenance={**predicted.provenance, **(measured.provenance if measured else {})},
        )
    )


def _timelines(plan: Plan, run: RunDirectory | None) -> list[dict[str, str]]:
    """Return the drawings of a step, the predicted above the measured, on one scale."""
    timelines = step_timelines(plan, run)
    title = "A step, predicted and measured" if len(timelines) > 1 else "A step, predicted"
    return [{"title": title, "svg": step_svg(timelines, inside_page=True)}]


def _memory_rows(estimates: list[tuple[str, Estimate]]) -> list[tuple[str, dict[str, float]]]:
    rows = []
    for label, estimate in estimates:
        for entry in estimate.memory.per_stage:
            parts = {part: float(getattr(entry, part)) for part in _MEMORY_PARTS}
            rest = entry.total - sum(parts.values())
            if rest > 0:
                parts["unassigned"] = rest
            rows.append((f"rank {entry.rank} {label}", parts))
    return rows
