"""The learning rate of each step: linear warm-up, then half a cosine down."""

from __future__ import annotations

import math

from planner.job import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Return the learning rate of `step` (from 0) in a run of `steps`.

    Warm-up rises in equal parts and reaches the peak at step `warmup_steps` − 1; the cosine then falls to
    `final_learning_rate` at the last step.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    progress = min(1.0, (step - spec.warmup_steps + 1) / max(1, steps - spec.warmup_steps))
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return spec.final_learning_rate + share * (spec.learning_rate - spec.final_learning_rate)
