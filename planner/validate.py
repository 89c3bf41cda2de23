"""Predictions against published runs, row by row.

Every record becomes a case (`planner.validate_records`), is priced like any plan, and compared. A run that
happened must not be called infeasible; one that ran out of memory must be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from planner.costs import assess
from planner.costs.memory import FRAGMENTATION
from planner.layout import Layout
from planner.validate_case import Case, Unpriced
from planner.validate_records import read_cases
from profiles.errors import CuboidError


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record: measured, predicted, or the reason why it is skipped.

    `error` is predicted / measured − 1 of the step time, `memory_error` that of the peak. `verdict` is "ok",
    "wrongly infeasible" (it ran) or "wrongly feasible" (it ran out of memory).
    """

    id: str
    source: str
    gpu: str = ""
    model_class: str = ""
    measured_step_seconds: float | None = None
    predicted_step_seconds: float | None = None
    error: float | None = None
    measured_peak_bytes: float | None = None
    predicted_peak_bytes: float | None = None
    memory_error: float | None = None
    verdict: str = "ok"
    assumed: tuple[str, ...] = ()
    skipped: str | None = None
    contest: tuple[object, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says about one case."""

    step_seconds: float
    peak_bytes: float
    fits: bool


def predict(case: Case) -> Prediction:
    """Price one case; where only some layers recompute, mix the prices of all and none in their ratio."""

    def once(layout: Layout) -> Prediction:
        estimate = assess(case.model, case.cluster, layout, software=case.software).estimate
        tensors = estimate.memory.peak_bytes - case.cluster.device.context_bytes
        seen = {
            "allocated": tensors,
            "reserved": tensors * (1 + FRAGMENTATION),
            "device": estimate.memory.peak_bytes + FRAGMENTATION * tensors,
        }
        return Prediction(
            step_seconds=estimate.step_seconds,
            peak_bytes=seen[case.memory_view],
            fits=estimate.fits,
        )

    whole = once(case.layout)
    if case.recompute_share >= 1:
        return whole
    share, plain = (
        case.recompute_share,
        once(case.layout.model_copy(update={"recompute": "none"})),
    )
    return Prediction(
        step_seconds=share * whole.step_seconds + (1 - share) * plain.step_seconds,
        peak_bytes=share * whole.peak_bytes + (1 - share) * plain.peak_bytes,
        fits=whole.fits,
    )


def compare(item: Case | Unpriced) -> Row:
    """Return the row of one record."""
    if isinstance(item, Unpriced):
        return Row(id=item.id, source=item.source, skipped=item.reason)
    try:
        predicted = predict(item)
    except (CuboidError, ArithmeticError, ValueError) as error:
        return Row(
            id=item.id,
            source=item.source,
            gpu=item.gpu,
            skipped=f"cannot be priced: {error}",
        )
    step, peak = item.measured_step_seconds, item.measured_peak_bytes
    verdict = "ok"
    if item.out_of_memory and predicted.fits:
        verdict = "wrongly feasible"
    elif not item.out_of_memory and not predicted.fits:
        verdict = "wrongly infeasible"
    return Row(
        id=item.id,
        source=item.source,
        gpu=item.gpu,
        model_class=model_class(item.model.parameters),
        measured_step_seconds=step,
        predicted_step_seconds=predicted.step_seconds,
        error=None if step is None else predicted.step_seconds / step - 1,
        measured_peak_bytes=peak,
        predicted_peak_bytes=predicted.peak_bytes,
        memory_error=None if peak is None else predicted.peak_bytes / peak - 1,
        verdict=verdict,
        assumed=item.assumed,
        contest=item.contest,
    )


def model_class(parameters: float) -> str:
    """Return the size class of a model."""
    for limit, name in ((1e9, "under 1B"), (1e10, "1B to 10B"), (1e11, "10B to 100B")):
        if parameters < limit:
            return name
    return "over 100B"


def validate_records(paths: Iterable[Path]) -> list[Row]:
    """Compare every record of the files and folders.

    Raises:
        ConfigError: when a path is missing, or a named file is not YAML.
    """
    return [compare(item) for path in paths for item in read_cases(path)]
