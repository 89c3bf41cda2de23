"""Recomputation that a table takes from a configuration instead of from the measured runs."""

from typing import Any

import pytest

from planner.validate_case import Case, Unpriced
from planner.validate_records import cases_from

COLUMNS = [
    "num_gpus", "global_batch", "micro_batch", "hidden", "heads", "layers", "seq_len",
    "tp", "dp", "pp", "iteration_time_s",
]  # fmt: skip
SMALL = [2, 16, 8, 1024, 16, 24, 1024, 1, 1, 2, 0.4]
LARGE = [2, 16, 8, 6144, 64, 48, 2048, 2, 1, 1, 9.0]  # some 650 GB of activations a rank
REMARK = "high for the time; recompute/schedule from the repository validation configurations"


def read(rows: list[list[Any]], confidence: str, recompute: str = "full") -> list[Case | Unpriced]:
    common = {"gpu": "A100", "gpus_per_node": 8, "vocab": 50257, "recompute": recompute}
    meta = {"confidence": confidence, "columns": COLUMNS, "common": common}
    return list(cases_from({"meta": meta, "rows": rows}, "table"))


@pytest.mark.parametrize(
    ("rows", "confidence", "expected"),
    [
        ([SMALL], REMARK, "none"),
        ([SMALL], "high: the job's own flags", "full"),
        ([SMALL, LARGE], REMARK, "full"),
        ([LARGE], REMARK, "full"),
    ],
)
def test_a_configured_recompute_is_kept_where_some_layout_needs_it(
    rows: list[list[Any]], confidence: str, expected: str
) -> None:
    for case in read(rows, confidence):
        assert isinstance(case, Case)
        assert case.layout.recompute == expected
        assert any("no recomputation" in text for text in case.assumed) == (expected == "none")


def test_measured_times_decide_nothing() -> None:
    (slow,) = read([[*SMALL[:-1], 100.0]], REMARK)
    (quick,) = read([[*SMALL[:-1], 1e-3]], REMARK)
    assert isinstance(slow, Case)
    assert isinstance(quick, Case)
    assert slow.layout == quick.layout


def test_words_that_are_not_understood_skip_the_record() -> None:
    (item,) = read([SMALL], REMARK, recompute="see measured")
    assert isinstance(item, Unpriced)
    assert "is not modelled" in item.reason
