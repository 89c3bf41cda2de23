"""What the rows of a validation add up to: errors by source, device and model size; ranking of layouts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from planner.validate import Row
from planner.validate_reasons import reasons

RESISTS = 0.25  # relative error beyond which a row is named
MIN_CONTEST = 3  # layouts that have to be measured before their order says anything


def statistics(errors: Sequence[float]) -> dict[str, float | int]:
    """Return count, mean, median, 90th percentile and worst of the absolute errors, and the bias."""
    values = np.asarray(errors, dtype=float)
    if not values.size:
        return {"count": 0}
    size = np.abs(values)
    return {
        "count": int(values.size),
        "mean": float(size.mean()),
        "median": float(np.median(size)),
        "p90": float(np.percentile(size, 90)),
        "worst": float(values[size.argmax()]),
        "bias": float(values.mean()),
    }


def summarise(rows: Sequence[Row], left_out: Mapping[str, Sequence[float]] | None = None) -> dict[str, Any]:
    """Return the summary of a validation as plain data.

    `left_out` are the errors of each source predicted from all others (`planner.validate_refit`), which is
    what a new source should expect.
    """
    timed = [row for row in rows if row.error is not None]
    resisting = {row.id: row.error for row in timed if row.error is not None and abs(row.error) > RESISTS}
    misjudged = [row.id for row in rows if row.verdict != "ok"]
    held = [row for row in rows if row.memory_error is not None]
    return {
        **statistics([row.error for row in timed if row.error is not None]),
        "by_source": _by(timed, lambda row: row.source, "error"),
        "by_gpu": _by(timed, lambda row: row.gpu, "error"),
        "by_model_class": _by(timed, lambda row: row.model_class, "error"),
        "mean_of_sources": _mean_of_sources(timed),
        "leave_one_source_out": _left_out(left_out or {}),
        "memory": {
            **statistics([row.memory_error for row in held if row.memory_error is not None]),
            "by_source": _by(held, lambda row: row.source, "memory_error"),
        },
        "feasibility": {
            "checked": sum(row.skipped is None for row in rows),
            "wrongly_infeasible": [row.id for row in rows if row.verdict == "wrongly infeasible"],
            "wrongly_feasible": [row.id for row in rows if row.verdict == "wrongly feasible"],
        },
        "resisting": resisting,
        "reasons": reasons([*resisting, *misjudged]),
        "ranking": ranking(timed),
        "skipped": dict(Counter(row.skipped for row in rows if row.skipped is not None)),
    }


def _by(rows: Iterable[Row], key: Callable[[Row], str], field: str) -> dict[str, Any]:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(getattr(row, field))
    return {name: statistics(errors) for name, errors in sorted(groups.items())}


def _left_out(errors: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the statistics of every source that was left out, and of all of them."""
    if not errors:
        return {}
    each = {source: statistics(values) for source, values in sorted(errors.items())}
    return {
        **statistics([error for values in errors.values() for error in values]),
        "mean_of_sources": float(np.mean([group["mean"] for group in each.values()])),
        "by_source": each,
    }


def _mean_of_sources(rows: Sequence[Row]) -> float | None:
    means = [group["mean"] for group in _by(rows, lambda row: row.source, "error").values()]
    return float(np.mean(means)) if means else None


def ranking(rows: Sequence[Row]) -> dict[str, Any]:
    """Return Kendall's tau and the regret of the predicted pick, where layouts competed with each other.

    A contest is one model with one batch on one cluster in several measured layouts. The regret is how much
    longer the layout that is predicted to be fastest took than the fastest measured one.
    """
    contests: defaultdict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        contests[row.contest].append(row)
    by_source: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for group in contests.values():
        if len(group) >= MIN_CONTEST:
            measured = np.array([row.measured_step_seconds for row in group], dtype=float)
            predicted = np.array([row.predicted_step_seconds for row in group], dtype=float)
            regret = float(measured[predicted.argmin()] / measured.min() - 1)
            by_source[group[0].source].append((kendall_tau(measured, predicted), regret))
    summary = {
        source: {
            "contests": len(pairs),
            "tau": float(np.mean([tau for tau, _ in pairs])),
            "regret": float(np.mean([regret for _, regret in pairs])),
        }
        for source, pairs in sorted(by_source.items())
    }
    pairs = [pair for values in by_source.values() for pair in values]
    if pairs:
        summary["all"] = {
            "contests": len(pairs),
            "tau": float(np.mean([tau for tau, _ in pairs])),
            "regret": float(np.mean([regret for _, regret in pairs])),
        }
    return summary


def kendall_tau(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Return Kendall's tau-b of two rankings; 1 when both order every pair alike, 0 when one is constant."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    upper = np.triu_indices(len(a), 1)
    x = np.sign(a[:, None] - a[None, :])[upper]
    y = np.sign(b[:, None] - b[None, :])[upper]
    scale = float(np.sqrt((x != 0).sum() * (y != 0).sum()))
    return float((x * y).sum() / scale) if scale else 0.0
