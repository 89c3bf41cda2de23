"""Leave one source out: what a prediction is worth for a cluster that none of the constants has seen.

The constants that were fitted to runs belong to a kind of device, an era of code or a kind of link. For every
source in turn they are fitted again to all other sources (least absolute deviations of the logarithm, linear
about the shipped values), and the source is predicted with the result. Efficiencies of a device that no other
source has run on are the mean of the other devices'. Constants of the model as a whole, which many sources
share (tiles, latencies, how host and device take turns), stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.validate import predict
from planner.validate_case import Case

Matrix = NDArray[np.float64]

STEP = 1.05  # by how much a constant is raised to see what it does
MOST_ROWS = 60  # of one source; larger tables are thinned evenly
SMALLEST = 0.02  # errors below this count as squares, above as they are
PRIOR = 1.0  # standard deviation of a constant's logarithm about the mean of its relatives
ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A fitted constant: its value in a case, the case with another value, and whose value it is."""

    name: str
    value: Callable[[Case], float]
    changed: Callable[[Case, float], Case]
    owner: Callable[[Case], str]


def _device(field: str) -> Constant:
    def changed(case: Case, value: float) -> Case:
        device = case.cluster.device.model_copy(update={field: value})
        return replace(case, cluster=case.cluster.model_copy(update={"device": device}))

    return Constant(
        name=field,
        value=lambda case: float(getattr(case.cluster.device, field)),
        changed=changed,
        owner=lambda case: case.gpu,
    )


def _software(field: str) -> Constant:
    def changed(case: Case, value: float) -> Case:
        raised: dict[str, Any] = {field: value}
        return replace(case, software=replace(case.software, **raised))

    return Constant(
        name=field,
        value=lambda case: float(getattr(case.software, field)),
        changed=changed,
        owner=lambda case: case.software.name,
    )


def _link(name: str, position: int) -> Constant:
    def changed(case: Case, value: float) -> Case:
        links = list(case.cluster.links)
        links[position] = links[position].model_copy(update={"bytes_per_second": value})
        return replace(case, cluster=case.cluster.model_copy(update={"links": tuple(links)}))

    return Constant(
        name=name,
        value=lambda case: float(case.cluster.links[position].bytes_per_second),
        changed=changed,
        owner=lambda case: str(case.cluster.links[position].kind),
    )


CONSTANTS = (
    _device("gemm_efficiency"),
    _device("memory_efficiency"),
    _device("attention_efficiency"),
    _software("host_factor"),
    _software("elementwise_traffic"),
    _software("loss_bytes"),
    _link("inner link", 0),
    _link("outer link", -1),
)
RELATED = {"gemm_efficiency", "memory_efficiency", "attention_efficiency"}  # comparable between owners


def thinned(cases: Sequence[Case]) -> list[Case]:
    """Return the cases with a step time, at most `MOST_ROWS` of each source."""
    timed = [case for case in cases if case.measured_step_seconds is not None]
    sizes = Counter(case.source for case in timed)
    seen: Counter[str] = Counter()
    kept = []
    for case in timed:
        size, number = sizes[case.source], seen[case.source]
        seen[case.source] += 1
        if size <= MOST_ROWS or number * MOST_ROWS // size != (number - 1) * MOST_ROWS // size:
            kept.append(case)
    return kept


def leave_one_out(cases: Sequence[Case]) -> dict[str, list[float]]:
    """Return, for every source, the relative errors of its step times predicted from all other sources."""
    kept = thinned(cases)
    measured = np.log([float(case.measured_step_seconds or 0.0) for case in kept])
    predicted = np.log([predict(case).step_seconds for case in kept])
    slopes, prior = _sensitivities(kept, predicted)
    sources = np.array([case.source for case in kept])
    names = sorted(set(sources.tolist()))
    result = {}
    for source in names if len(names) > 1 else []:
        out = sources == source
        found = _fit(slopes[~out], (measured - predicted)[~out], sources[~out], prior(~out))
        errors = np.exp(predicted[out] + slopes[out] @ found - measured[out]) - 1
        result[source] = [float(error) for error in errors]
    return result


def _sensitivities(cases: Sequence[Case], predicted: Matrix) -> tuple[Matrix, Callable[[Any], Matrix]]:
    """Return d log step / d log constant, and where each constant is drawn to.

    The latter is a function of the rows that may be used: the mean of the constant's relatives in those rows,
    relative to the shipped value, as a logarithm.
    """
    names = sorted({(constant.name, constant.owner(case)) for constant in CONSTANTS for case in cases})
    column = {name: number for number, name in enumerate(names)}
    slopes = np.zeros((len(cases), len(names)))
    shipped = np.zeros(len(names))
    used = np.zeros((len(cases), len(names)), dtype=bool)
    for constant in CONSTANTS:
        for row, case in enumerate(cases):
            number = column[constant.name, constant.owner(case)]
            value = constant.value(case)
            raised = predict(constant.changed(case, value * STEP)).step_seconds
            slopes[row, number] = (np.log(raised) - predicted[row]) / np.log(STEP)
            shipped[number], used[row, number] = value, True

    def prior(rows: Any) -> Matrix:
        drawn = np.zeros(len(names))
        for number, (name, _) in enumerate(names):
            alike = [j for j, (other, _) in enumerate(names) if other == name and used[rows][:, j].any()]
            if name in RELATED and alike and not used[rows][:, number].any():
                drawn[number] = np.log(np.mean(shipped[alike]) / shipped[number])
        return drawn

    return slopes, prior


def _fit(slopes: Matrix, residuals: Matrix, sources: Any, drawn: Matrix) -> Matrix:
    """Return the constants' logarithms that least change every source's mean absolute residual from zero."""
    sizes = Counter(sources.tolist())
    share = np.array([sizes[source] ** -0.5 for source in sources.tolist()])
    found = drawn.copy()
    for _ in range(ROUNDS):
        weight = share / np.maximum(np.abs(residuals - slopes @ found), SMALLEST)
        normal = slopes.T @ (slopes * weight[:, None]) + np.eye(len(found)) / PRIOR**2
        right = slopes.T @ (weight * residuals) + drawn / PRIOR**2
        found = np.asarray(np.linalg.solve(normal, right), dtype=np.float64)
    return found
