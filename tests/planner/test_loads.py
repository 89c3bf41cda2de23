"""The slowest rank in closed form, against the split itself."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.assemble import even_split
from planner.columns import LayerTimes, Part
from planner.loads import loads


def times(block: float, first: float, last: float) -> LayerTimes:
    def part(seconds: float) -> Part:
        value = np.array([seconds / 2])
        return Part(forward=value, backward=value, weight_gradient=value / 2, hiding=value)

    return LayerTimes(
        block=part(block),
        first=part(first),
        last=part(last),
        first_alone=part(first),
        last_alone=part(last),
        hop=np.zeros(1),
        known=np.ones(1, dtype=bool),
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.floats(0.1, 3), st.floats(0, 9), st.floats(0, 9))
@example(pp=2, layers=5, block=0.375, first=1.0, last=1e-9)
def test_slowest_rank_in_closed_form_is_that_of_the_split(
    pp: int, layers: int, block: float, first: float, last: float
) -> None:
    pp = min(pp, layers)
    load = loads(layers, np.array([pp]), times(block, first, last))
    extra = [0.0] * pp
    extra[0] += first
    extra[-1] += last
    counts = even_split(layers, block, extra)
    assert sum(counts) == layers
    slowest = max(n * block + more for n, more in zip(counts, extra, strict=True))
    assert load.slowest[0] == pytest.approx(slowest, rel=1e-6)
    if pp > 1:
        assert load.first_layers[0] <= counts[0] and load.last_layers[0] <= counts[-1]
        assert load.most[0] >= max(counts)
