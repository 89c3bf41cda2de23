"""Fold measured runs into a cost table, so that the next plan is better, and tell by how much.

`bench` measures pieces alone; in a job they meet: messages wait for the neighbour, caches are shared, the
host has other work. The difference is fitted as a few factors on groups of the table and one overhead a step,

    minimise  Σ_runs (ln predicted/measured)² + ½ Σ_parts ((predicted − measured)/step)² + λ Σ θ²

with θ the logarithms of the factors (the overhead as a share of a step). The last term holds a factor at 1
unless the runs speak against it, so that one run cannot turn the table upside down. The planner's own `price`
is the model, so whatever it does with the table is taken into account. Gauss–Newton, a few steps. A run is
held out by leaving its rows out of the last step's equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.costs import price
from planner.estimate import Estimate
from planner.layout import Layout
from planner.plan import Plan
from profiles.costs import Calibration, CollectiveCost, CostTable, LayerCost
from profiles.errors import ConfigError

Vector = NDArray[np.float64]
Cost = TypeVar("Cost", LayerCost, CollectiveCost)

RIDGE = 0.02  # a factor of e costs as much as an error of 14 % of one run
PART_WEIGHT = 0.5**0.5
STEPS = 6
DIFFERENCE = 1e-3
TOLERANCE = 1e-3
LARGEST = np.log(4.0)


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """A run that ended: its plan, and the record in the fields of an estimate."""

    name: str
    plan: Plan
    record: Estimate


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Predicted against measured step time of one run; `held_out` is predicted from all other runs."""

    name: str
    layout: Layout
    measured_seconds: float
    before_seconds: float
    after_seconds: float
    held_out_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """The calibrated table, one row a run, and the runs that could not be used with the reason."""

    costs: CostTable
    rows: tuple[RunError, ...]
    skipped: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """One factor: its name and what it multiplies."""

    name: str
    scale: Callable[[CostTable, float], CostTable]


def calibrate(runs: Sequence[MeasuredRun], costs: CostTable) -> CalibrationResult:
    """Fit the factors to `runs` and return the table with them folded in.

    Raises:
        ConfigError: when no run can be priced from `costs`.
    """
    usable, skipped = _usable(runs, costs)
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ConfigError(f"no run can be priced from these costs ({reasons or 'no run given'})")
    fit = _Fit(usable, costs)
    theta = fit.solve()
    after = _with_memory(usable, fit.table(theta))
    rows = []
    for index, run in enumerate(usable):
        held_out = None
        if len(usable) > 1:
            held_out = _predict(run, fit.table(fit.without(index))).step_seconds
        rows.append(
            RunError(
                name=run.name,
                layout=run.plan.layout,
                measured_seconds=run.record.step_seconds,
                before_seconds=_predict(run, costs).step_seconds,
                after_seconds=_predict(run, after).step_seconds,
                held_out_seconds=held_out,
            )
        )
    calibration = Calibration(
        runs=tuple(run.name for run in usable),
        factors={group.name: float(np.exp(t)) for group, t in zip(GROUPS, theta, strict=False)},
        error_before=mean(_error(row.before_seconds, row) for row in rows),
        error_after=mean(_error(row.after_seconds, row) for row in rows),
        error_held_out=mean(_error(row.held_out_seconds, row) for row in rows) if len(rows) > 1 else None,
    )
    return CalibrationResult(
        costs=after.model_copy(update={"calibration": calibration}), rows=tuple(rows), skipped=skipped
    )


def _usable(runs: Sequence[MeasuredRun], costs: CostTable) -> tuple[list[MeasuredRun], dict[str, str]]:
    usable, skipped = [], {}
    for run in runs:
        try:
            estimate = _predict(run, costs)
        except ConfigError as error:
            skipped[run.name] = str(error)
            continue
        if costs.machine not in estimate.provenance.get("compute", ""):
            skipped[run.name] = "the costs are for another model"
        elif run.record.step_seconds <= 0:
            skipped[run.name] = "its record has no step time"
        else:
            usable.append(run)
    return usable, skipped


def _predict(run: MeasuredRun, costs: CostTable) -> Estimate:
    return price(run.plan.model, run.plan.cluster, run.plan.layout, costs=costs)


def _error(predicted: float | None, row: RunError) -> float:
    assert predicted is not None
    return abs(predicted / row.measured_seconds - 1)


class _Fit:
    """The factors of one table from some runs.

    theta holds ln of each group's factor, and last the overhead as a share of a typical step.
    """

    def __init__(self, runs: Sequence[MeasuredRun], costs: CostTable) -> None:
        self._runs, self._costs = runs, costs
        self._typical_seconds = median(run.record.step_seconds for run in runs)
        self._theta = np.zeros(len(GROUPS) + 1)
        self._values: list[Vector] = []  # residuals by run at theta
        self._slopes: list[Vector] = []  # their derivatives, [residuals, theta]

    def solve(self) -> Vector:
        """Return theta from all runs."""
        for _ in range(STEPS):
            self._linearise()
            before, self._theta = self._theta, self._step(range(len(self._runs)))
            if float(np.abs(self._theta - before).max()) < TOLERANCE:
                break
        return self._theta

    def without(self, index: int) -> Vector:
        """Return theta from all runs but one."""
        return self._step([i for i in range(len(self._runs)) if i != index])

    def table(self, theta: Vector) -> CostTable:
        """Return the table with the factors folded in."""
        costs = self._costs
        for group, value in zip(GROUPS, theta, strict=False):
            costs = group.scale(costs, float(np.exp(value)))
        overhead = (costs.step_overhead_seconds or 0.0) + float(theta[-1]) * self._typical_seconds
        return costs.model_copy(update={"step_overhead_seconds": overhead})

    def _linearise(self) -> None:
        self._values = self._residuals(self._theta)
        moved = []
        for index in range(len(self._theta)):
            theta = self._theta.copy()
            theta[index] += DIFFERENCE
            moved.append(self._residuals(theta))
        self._slopes = [
            np.stack([(there[run] - here) / DIFFERENCE for there in moved], axis=1)
            for run, here in enumerate(self._values)
        ]

    def _residuals(self, theta: Vector) -> list[Vector]:
        table = self.table(theta)
        overhead = table.step_overhead_seconds or 0.0
        return [_residuals(_predict(run, table), run.record, overhead) for run in self._runs]

    def _step(self, chosen: Sequence[int]) -> Vector:
        held = np.sqrt(RIDGE) * np.eye(len(self._theta))
        slopes = np.vstack([*(self._slopes[i] for i in chosen), held])
        values = np.concatenate([*(self._values[i] for i in chosen), held @ self._theta])
        step, *_ = np.linalg.lstsq(slopes, -values, rcond=None)
        theta: Vector = np.clip(self._theta + step, -LARGEST, LARGEST)
        theta[-1] = max(0.0, theta[-1])
        return theta


def _residuals(predicted: Estimate, measured: Estimate, overhead_seconds: float) -> Vector:
    values = [float(np.log(predicted.step_seconds / measured.step_seconds))]
    if measured.time.forward:
        pairs = zip(_parts(predicted, overhead_seconds), _parts(measured), strict=True)
        values += [PART_WEIGHT * (ours - theirs) / measured.step_seconds for ours, theirs in pairs]
    return np.array(values)


def _parts(estimate: Estimate, overhead_seconds: float = 0.0) -> tuple[float, float, float]:
    """Compute with the tensor-parallel messages inside it, gradient reduction, optimizer.

    The planner counts the overhead of a step as optimizer, a run does not. What a run records as bubble holds
    waiting of any kind; it follows from the rest.
    """
    time = estimate.time
    compute = time.forward + time.backward + time.recompute + time.tp_comm
    return compute, time.dp_comm, time.optimizer - overhead_seconds


def _with_memory(runs: Sequence[MeasuredRun], costs: CostTable) -> CostTable:
    """Move the bytes of a bare process by the median of what the runs' peaks differ by."""
    differences = [
        run.record.memory.peak_bytes - _predict(run, costs).memory.peak_bytes
        for run in runs
        if run.record.memory.peak_bytes
    ]
    if not differences or costs.process_bytes is None:
        return costs
    return costs.model_copy(
        update={"process_bytes": max(0, round(costs.process_bytes + median(differences)))}
    )


def _scale_layers(costs: CostTable, factor: float) -> CostTable:
    return costs.model_copy(update={"layers": tuple(_scaled(cost, factor) for cost in costs.layers)})


def _scale_sums(costs: CostTable, factor: float) -> CostTable:
    return _scale_messages(costs, factor, lambda cost: cost.operation != "send_recv")


def _scale_sends(costs: CostTable, factor: float) -> CostTable:
    return _scale_messages(costs, factor, lambda cost: cost.operation == "send_recv")


def _scale_messages(costs: CostTable, factor: float, wanted: Callable[[CollectiveCost], bool]) -> CostTable:
    scaled = tuple(_scaled(cost, factor) if wanted(cost) else cost for cost in costs.collectives)
    return costs.model_copy(update={"collectives": scaled})


def _scale_optimizer(costs: CostTable, factor: float) -> CostTable:
    seconds = costs.optimizer_seconds_per_parameter
    return costs.model_copy(
        update={"optimizer_seconds_per_parameter": None if seconds is None else seconds * factor}
    )


def _scaled(cost: Cost, factor: float) -> Cost:
    seconds = {"seconds": cost.seconds * factor, "spread_seconds": cost.spread_seconds * factor}
    for name in ("mean_seconds", "cpu_seconds", "busy_seconds"):
        value = getattr(cost, name, None)
        if value is not None:
            seconds[name] = value * factor
    return cost.model_copy(update=seconds)


GROUPS = (
    _Group(name="compute", scale=_scale_layers),
    _Group(name="collectives", scale=_scale_sums),
    _Group(name="send_recv", scale=_scale_sends),
    _Group(name="optimizer", scale=_scale_optimizer),
)
