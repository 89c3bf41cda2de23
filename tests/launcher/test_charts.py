"""Charts: shapes stay inside the picture and in proportion."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from launcher.charts import WIDTH, bar_chart, line_chart

values = st.just(0.0) | st.floats(1e-6, 1e12)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), values), min_size=1, max_size=5))
def test_bars_fit_and_are_in_proportion(rows: list[dict[str, float]]) -> None:
    chart = bar_chart("x", [("row", row) for row in rows], str)
    totals = [sum(row.values()) for row in rows]
    for row, bar in zip(rows, chart.bars, strict=True):
        assert bar.end <= WIDTH
        start = chart.bars[0].parts[0].x if bar.parts else 0
        assert bar.y < chart.height
        if max(totals) > 0 and bar.parts:
            longest = max(other.end - start for other in chart.bars)
            assert abs((bar.end - start) / longest - sum(row.values()) / max(totals)) < 0.01


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(-1e6, 1e6)), max_size=20))
def test_a_curve_stays_inside(points: list[tuple[int, float]]) -> None:
    points = sorted(points)
    chart = line_chart("x", points, str)
    if len(points) < 2:
        assert chart is None
        return
    assert chart
    for pair in chart.points.split():
        x, y = map(float, pair.split(","))
        assert chart.left <= x <= chart.width
        assert 0 <= y <= chart.height


def test_infinite_losses_are_not_drawn() -> None:
    assert line_chart("x", [(1, 1.0), (2, math.inf), (3, math.nan)], str) is None
