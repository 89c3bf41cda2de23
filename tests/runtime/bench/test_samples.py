"""Summaries of samples against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bench.samples import summarise
from runtime.bench.stopwatch import Lap


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=40))
def test_median_and_quartile_distance(seconds: list[float]) -> None:
    summary = summarise([Lap(s, 2 * s) for s in seconds])
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    assert summary.seconds == pytest.approx(middle)
    assert summary.spread_seconds == pytest.approx(high - low, abs=1e-12)
    capped = np.minimum(seconds, 4 * middle).mean()
    assert summary.mean_seconds == pytest.approx(capped)
    assert summary.cpu_seconds == pytest.approx(2 * capped)
    assert summary.samples == len(seconds)


def test_the_mean_foretells_a_long_sum_and_the_median_does_not() -> None:
    # Every fifth run is disturbed and takes three times as long.
    once = [3.0 if index % 5 == 0 else 1.0 for index in range(100)]
    summary = summarise([Lap(seconds, None) for seconds in once])
    assert summary.seconds == 1.0
    assert 1000 * summary.mean_seconds == pytest.approx(10 * sum(once))


def test_an_accelerator_has_no_processor_time() -> None:
    assert summarise([Lap(1.0, None), Lap(2.0, None)]).cpu_seconds is None


def test_no_samples_no_summary() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])
