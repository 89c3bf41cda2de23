"""Predicted against measured: signs, gaps and parts."""

from __future__ import annotations

import pytest

from launcher.compare import compare
from planner.estimate import Estimate, Memory, RankMemory, TimeBreakdown


def estimate(step: float, forward: float, peak: float, *, mfu: float | None = None) -> Estimate:
    entry = RankMemory(rank=0, weights=1, gradients=0, optimizer=0, activations=0, workspace=0, total=peak)
    return Estimate(
        step_seconds=step,
        tokens_per_second=100 / step,
        model_flops_per_device=1e9 / step,
        mfu=mfu,
        time=TimeBreakdown(forward=forward, backward=step - forward),
        memory=Memory(peak_bytes=peak, per_stage=(entry,)),
    )


def test_the_error_is_positive_when_the_prediction_is_too_high() -> None:
    rows = {row.name: row for row in compare(estimate(1.1, 0.4, 900), estimate(1.0, 0.5, 1000))}
    assert rows["step time"].error == pytest.approx(0.1)
    assert rows["forward"].error == pytest.approx(-0.2)
    assert rows["peak memory"].error == pytest.approx(-0.1)
    assert rows["tokens per second"].error == pytest.approx(1 / 1.1 - 1)
    assert rows["pipeline rank 0"].cells() == ("  pipeline rank 0", "900 B", "1000 B", "-10.0%")


def test_what_is_unknown_has_no_error() -> None:
    rows = {row.name: row for row in compare(estimate(1.0, 0.5, 10), None)}
    assert rows["step time"].measured is None
    assert rows["step time"].cells()[2:] == ("–", "")
    assert rows["MFU"].cells()[1] == "–"


def test_messages_that_are_measured_inside_the_layers_are_compared_with_them() -> None:
    """A run cannot tell them from the forward and backward that wait for them."""
    predicted = estimate(1.0, 0.3, 10)
    time = predicted.time.model_copy(update={"backward": 0.5, "tp_comm": 0.2})
    rows = {
        row.name: row for row in compare(predicted.model_copy(update={"time": time}), estimate(1.25, 0.5, 10))
    }
    assert rows["compute and tp_comm"].error == pytest.approx(-0.2)
    assert rows["forward"].error is None
    assert rows["tp_comm"].cells() == ("    tp_comm", "200 ms", "–", "")


def test_parts_that_are_zero_on_both_sides_are_left_out() -> None:
    names = [row.name for row in compare(estimate(1.0, 0.5, 10), estimate(1.0, 0.5, 10))]
    assert "dp_comm" not in names
    assert names.index("forward") == names.index("step time") + 1
