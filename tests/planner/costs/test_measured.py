"""Interpolation between measured shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.measured import interpolate


@given(
    ys=st.lists(st.floats(0.1, 10), min_size=2, max_size=6),
    x=st.floats(0.5, 20),
)
def test_measured_points_are_met_and_times_never_fall_below_zero(ys: list[float], x: float) -> None:
    points = [(float(i + 1), y) for i, y in enumerate(sorted(ys))]
    for at, y in points:
        assert interpolate(at, points) == pytest.approx(y)
    assert interpolate(x, points) > 0


def test_one_point_is_scaled() -> None:
    assert interpolate(6, [(2, 1.0)]) == pytest.approx(3.0)
    assert interpolate(1, [(2, 1.0)]) == pytest.approx(0.5)


def test_the_last_slope_goes_on() -> None:
    assert interpolate(8, [(1, 1.0), (2, 1.5), (4, 2.5)]) == pytest.approx(4.5)
