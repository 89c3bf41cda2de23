"""What a job is expected to cost before it is sent: the dry-run cost report."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.slurm.submission import Submission
from planner.job import Job


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """Predicted time, memory and price of a whole job."""

    step_seconds: float
    tokens_per_second: float
    mfu: float | None
    peak_bytes: float
    device_bytes: int
    steps: int
    seconds: float
    devices: int
    device_hours: float
    price: float | None
    expected_start: str
    notes: tuple[str, ...]


def cost_report(job: Job, submission: Submission, *, expected_start: str) -> CostReport:
    """Return the report: from the plan's own estimate, or priced now."""
    from planner.costs import price  # noqa: PLC0415 (numpy)

    plan = job.plan
    estimate = plan.estimate or price(plan.model, plan.cluster, plan.layout)
    seconds = estimate.step_seconds * job.steps
    # Whole nodes are paid for, the devices that no rank uses included.
    devices = submission.placement.nodes * plan.cluster.devices_per_node
    hours = devices * seconds / 3600
    rate = submission.settings.options.price_per_device_hour
    return CostReport(
        step_seconds=estimate.step_seconds,
        tokens_per_second=estimate.tokens_per_second,
        mfu=estimate.mfu,
        peak_bytes=estimate.memory.peak_bytes,
        device_bytes=plan.cluster.device.memory_bytes,
        steps=job.steps,
        seconds=seconds,
        devices=devices,
        device_hours=hours,
        price=None if rate is None else hours * rate,
        expected_start=expected_start,
        notes=estimate.notes,
    )
