"""Show a running job: one line a step, thinned to what a person can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from profiles.units import format_bytes, format_count, format_seconds

QUIET_SECONDS = 1.0


def step_line(metrics: Mapping[str, Any], steps: int) -> str:
    """Write one step's metrics as one line: loss, gradient norm, learning rate, time, rates, peak memory.

    `metrics` is a line of metrics.jsonl; `steps` the length of the job. FLOP/s are the model's, per device.
    """
    parts = [
        f"step {metrics['step']:>{len(str(steps))}}/{steps}",
        f"loss {metrics['loss']:.4f}",
        f"norm {metrics['grad_norm']:.2f}",
        f"lr {metrics['learning_rate']:.1e}",
        format_seconds(metrics["step_seconds"]),
        f"{format_count(metrics['tokens_per_second'])} tok/s",
        f"{format_count(metrics['model_flops_per_device'], 'FLOP/s')}",
    ]
    if metrics.get("mfu") is not None:
        parts.append(f"MFU {metrics['mfu']:.1%}")
    parts.append(f"{format_bytes(metrics['peak_bytes'])}")
    return "  ".join(parts)


@dataclass(kw_only=True)
class StepPrinter:
    """Prints the first and the last step, and between them at most one a second."""

    steps: int
    write: Callable[[str], None]
    _last: float = field(default=0.0, init=False)

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        """Print the step, or leave it out."""
        now = time.monotonic()
        if metrics["step"] not in (1, self.steps) and now - self._last < QUIET_SECONDS:
            return
        self._last = now
        self.write(step_line(metrics, self.steps))
