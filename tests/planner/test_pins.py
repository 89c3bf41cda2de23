"""Pins as people type them."""

import pytest

from planner.layout import Layout
from planner.pins import parse_pins
from profiles.errors import ConfigError


def test_values_have_the_types_of_the_layout() -> None:
    pins = parse_pins("tp=8, schedule=1f1b,sequence_parallel=true,zero=1,recompute=full")
    assert dict(pins.values) == {
        "tp": 8,
        "schedule": "1f1b",
        "sequence_parallel": True,
        "zero": 1,
        "recompute": "full",
    }
    assert pins.describe() == "tp=8,schedule=1f1b,sequence_parallel=true,zero=1,recompute=full"
    layout = Layout(tp=8, global_batch=8, sequence_parallel=True, zero=1, recompute="full")
    assert pins.match(layout)
    assert not pins.match(layout.model_copy(update={"tp": 4}))


def test_nothing_pinned_allows_everything() -> None:
    pins = parse_pins("")
    assert pins.match(Layout(global_batch=1)) and pins.allow("tp", 3) and pins.get("tp") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tp", "'tp' is not of the form key=value"),
        ("tp=", "'tp=' is not of the form key=value"),
        ("tpp=8", "unknown key 'tpp'; did you mean 'tp'?"),
        ("nonsense=8", "unknown key 'nonsense'; use tp, pp, dp"),
        ("tp=8,tp=4", "'tp' is given twice"),
        ("tp=0", "tp: Input should be greater than 0|tp: must be greater than 0"),
        ("tp=2.5", "tp: "),
        ("sequence_parallel=1", "sequence_parallel: "),
        ("recompute=some", "recompute: must be 'none', 'selective' or 'full'"),
        ("zero=4", "zero: must be 0, 1, 2 or 3"),
    ],
)
def test_what_cannot_be_pinned(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pins(text)
