"""Interpolation between measured shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.measured import interpolate, stand_in
from profiles.costs import CostTable, LayerCost
from profiles.model import ModelSpec


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


def test_times_that_stand_in_for_others_are_told() -> None:
    block = LayerCost(
        component="block",
        phase="forward",
        microbatch=1,
        seq_len=16,
        precision="fp32",
        seconds=1.0,
        spread_seconds=0.0,
        samples=3,
    )
    model = ModelSpec(layers=2, hidden=32, heads=2, vocab=64, seq_len=16)
    costs = CostTable(machine="here", device="a processor", model=model, concurrent_ranks=1, layers=(block,))

    def told(**asked: object) -> str:
        usual = {"tp": 1, "seq_len": 16, "sequence_parallel": False, "precision": "fp32"}
        return stand_in(costs, **(usual | asked))  # type: ignore[arg-type]

    assert told() == ""
    assert told(precision="bf16") == ", fp32 times in place of bf16"
    assert told(sequence_parallel=True) == ", times without sequence parallelism"
    assert told(tp=2, precision="bf16") == ""  # nothing stands in: there is no price
