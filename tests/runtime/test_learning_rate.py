"""Warm-up and cosine against torch's schedulers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.job import OptimizerSpec
from runtime.learning_rate import learning_rate


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 60))
def test_equals_torch_schedulers(warmup, steps):
    spec = OptimizerSpec(learning_rate=0.3, final_learning_rate=0.05, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    rates = []
    if warmup:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, max(1, warmup - 1))
        for _ in range(warmup):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            linear.step()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup), 0.05)
    for _ in range(steps - warmup):
        optimizer.step()
        cosine.step()
        rates.append(optimizer.param_groups[0]["lr"])
    if warmup == 1:
        rates[0] = 0.3  # LinearLR cannot start at its end
    ours = [learning_rate(spec, step, steps) for step in range(steps)]
    assert ours == pytest.approx(rates[:steps], rel=1e-9)


def test_ends():
    spec = OptimizerSpec(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4)
    assert [learning_rate(spec, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(spec, 9, 10) == pytest.approx(0.1)
    assert learning_rate(spec, 10**6, 10) == pytest.approx(0.1)
