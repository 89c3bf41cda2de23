"""record.json: what a run measured, in the fields of an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from planner.estimate import Estimate, Memory, RankMemory, TimeBreakdown
from planner.job import Job
from runtime.metrics import rates
from runtime.trace import RankTimes

WARM_STEPS = 2  # the first steps pay for allocation and are left out where there are more


def steady(values: Sequence[Any]) -> Sequence[Any]:
    """Return the steps after the warm ones."""
    return values[WARM_STEPS:] or values


def typical_seconds(history: Sequence[float]) -> float:
    """Return the median of the steady steps."""
    return float(median(steady(history)))


def typical(history: Sequence[RankTimes]) -> RankTimes:
    """Return the medians over one rank's steady steps."""
    return RankTimes(*(median(column) for column in zip(*steady(history), strict=True)))


def measured(
    job: Job,
    *,
    times: Sequence[RankTimes],
    memory: Sequence[RankMemory],
    step_seconds: float,
) -> Estimate:
    """Return the measurement of a run.

    `times` and `memory` are by pipeline rank. The breakdown is that of the busiest rank; what it neither
    computed nor spent on gradients and optimizer is bubble, waiting for neighbours included.
    """
    slowest = max(times, key=lambda t: t.forward + t.backward + t.gradients + t.optimizer)
    spent = slowest.forward + slowest.backward + slowest.gradients + slowest.optimizer
    scale = min(1.0, step_seconds / spent) if spent else 1.0  # medians of parts need not add up
    busy = sum(t.forward + t.backward for t in times)
    cycle = max(t.span for t in times)
    speed = rates(job, step_seconds)
    crowded = job.plan.cluster.device.vendor == "cpu"
    return Estimate(
        step_seconds=step_seconds,
        tokens_per_second=speed.tokens_per_second,
        model_flops_per_device=speed.model_flops_per_device,
        mfu=speed.mfu,
        bubble_fraction=max(0.0, 1.0 - busy / (len(times) * cycle)) if cycle else 0.0,
        time=TimeBreakdown(
            forward=slowest.forward * scale,
            backward=slowest.backward * scale,
            dp_comm=slowest.gradients * scale,
            optimizer=slowest.optimizer * scale,
            bubble=max(0.0, step_seconds - spent * scale),
        ),
        memory=Memory(peak_bytes=max(m.total for m in memory), per_stage=tuple(memory)),
        provenance={
            "step_seconds": f"measured: median of steps after the first {WARM_STEPS}",
            "time": "measured on the busiest pipeline rank; tensor-parallel collectives and recomputation"
            " count as forward and backward, waiting for neighbours as bubble",
            "bubble_fraction": "measured: 1 − busy / (ranks · cycle), medians over steps",
            "memory": "measured: peak resident memory of the process"
            if crowded
            else "measured: peak of the device's allocator",
        },
    )
