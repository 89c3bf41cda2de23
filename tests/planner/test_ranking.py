"""Ties go to the plainer layout, and what gains nothing shares a row."""

from typing import Any

import pytest

from planner.estimate import Estimate, Memory, TimeBreakdown
from planner.layout import Layout
from planner.ranking import TIE, Priced, rank_rows, row_key


def priced(step: float, *, peak: float = 60e9, **fields: Any) -> Priced:
    layout = Layout(**({"tp": 8, "pp": 8, "dp": 1, "global_batch": 64} | fields))
    estimate = Estimate(
        step_seconds=step,
        tokens_per_second=1e6,
        model_flops_per_device=1e14,
        time=TimeBreakdown(forward=step),
        memory=Memory(peak_bytes=peak),
    )
    return layout, estimate


def test_a_tie_goes_to_the_plainer_schedule() -> None:
    plain = priced(10.0 * (1 + 0.9 * TIE))
    fancy = priced(10.0, schedule="zb-v", chunks=2)
    rows = rank_rows([fancy, plain])
    assert [row.chosen for row in rows] == [plain]
    assert rows[0].alike == (fancy,)


def test_beyond_a_tie_the_faster_one_wins() -> None:
    plain = priced(10.0 * (1 + 1.1 * TIE))
    fancy = priced(10.0, schedule="zb-v", chunks=2)
    rows = rank_rows([plain, fancy])
    assert rows[0].chosen == fancy
    assert rows[0].alike == (plain,)


@pytest.mark.parametrize(
    ("plain", "fancy"),
    [
        ({"schedule": "interleaved-1f1b", "chunks": 2}, {"schedule": "interleaved-1f1b", "chunks": 3}),
        ({"schedule": "1f1b"}, {"schedule": "zb-h1"}),
        ({"recompute": "none"}, {"recompute": "full"}),
        ({"zero": 0}, {"zero": 1}),
        ({"rank_order": "tp-dp-pp"}, {"rank_order": "dp-tp-pp"}),
    ],
)
def test_what_counts_as_plainer(plain: dict[str, Any], fancy: dict[str, Any]) -> None:
    assert rank_rows([priced(1.0, **fancy), priced(1.0, **plain)])[0].chosen == priced(1.0, **plain)


def test_among_equals_the_smaller_memory_wins() -> None:
    lean, full = priced(1.0, peak=50e9, tp=4, pp=16), priced(1.0, peak=60e9)
    assert rank_rows([full, lean])[0].chosen == lean


def test_other_degrees_keep_their_rows_in_the_order_of_their_steps() -> None:
    steps = {8: 2.0, 4: 1.0, 2: 3.0}
    rows = rank_rows([priced(step, pp=pp) for pp, step in steps.items()])
    assert [row.chosen[0].pp for row in rows] == [4, 8, 2]
    assert len({row_key(row.chosen[0]) for row in rows}) == 3


def test_a_slower_schedule_has_a_row_only_where_it_saves_memory() -> None:
    fast = priced(1.0, schedule="zb-v", chunks=2)
    slow = priced(1.1, peak=59e9)
    lean = priced(1.2, peak=40e9, schedule="v-half", chunks=2)
    rows = rank_rows([lean, slow, fast])
    assert [row.chosen for row in rows] == [fast, lean]
    assert rows[0].alike == (slow,)


def test_every_layout_is_found_once() -> None:
    pairs = [
        priced(1.0 + 0.01 * number, schedule=schedule, pp=pp, peak=60e9 - number * 1e9)
        for number, (schedule, pp) in enumerate((s, p) for s in ("1f1b", "gpipe", "zb-h1") for p in (2, 4, 8))
    ]
    rows = rank_rows(pairs)
    found = [row.chosen for row in rows] + [pair for row in rows for pair in row.alike]
    assert sorted(e.step_seconds for _, e in found) == sorted(e.step_seconds for _, e in pairs)
    assert rank_rows([]) == []
