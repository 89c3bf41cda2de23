"""metrics.jsonl and the line that rank 0 prints after every step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.costs.flops import model_flops
from planner.job import Job
from runtime.events import append_line, drop_partial_line
from runtime.trainer import StepResult


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a step of `step_seconds` means for one job."""

    tokens_per_second: float
    model_flops_per_device: float
    mfu: float | None


def rates(job: Job, step_seconds: float) -> Rates:
    """Return throughput and utilisation; MFU is None where the device's peak for the precision is unknown."""
    plan = job.plan
    layout, model = plan.layout, plan.model
    flops = float(model_flops(model, layout.global_batch)) / step_seconds / layout.world_size
    peak = plan.cluster.device.flops_per_second.get(layout.precision)
    return Rates(
        tokens_per_second=layout.global_batch * model.seq_len / step_seconds,
        model_flops_per_device=flops,
        mfu=flops / peak if peak else None,
    )


class MetricsWriter:
    """Writes and prints the metrics of every step; rank 0 has one."""

    def __init__(self, job: Job, run: Path) -> None:
        self._job = job
        self._path = run / "metrics.jsonl"
        drop_partial_line(self._path)

    def write(self, result: StepResult, step_seconds: float) -> None:
        """Write one step."""
        measured = rates(self._job, step_seconds)
        layout, model = self._job.plan.layout, self._job.plan.model
        metrics: dict[str, Any] = {
            "step": result.step,
            "loss": result.loss,
            "grad_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            "step_seconds": step_seconds,
            "tokens_per_second": measured.tokens_per_second,
            "model_flops_per_device": measured.model_flops_per_device,
            "mfu": measured.mfu,
            "peak_bytes": max(result.peak_bytes),
            "tokens": result.step * layout.global_batch * model.seq_len,
        }
        append_line(self._path, metrics)
        mfu = "" if measured.mfu is None else f"  MFU {measured.mfu:.1%}"
        print(
            f"step {result.step}/{self._job.steps}  loss {result.loss:.4f}"
            f"  grad norm {result.gradient_norm:.3f}  lr {result.learning_rate:.2e}"
            f"  {step_seconds:.3f} s  {measured.tokens_per_second:,.0f} tokens/s"
            f"  {measured.model_flops_per_device / 1e9:,.2f} GFLOP/s a rank{mfu}"
            f"  peak {metrics['peak_bytes'] / 2**20:,.0f} MiB",
            flush=True,
        )
