"""Numbers as people read them."""

from __future__ import annotations

import pytest

from profiles.units import format_bytes, format_count, format_seconds


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (80 * 2**30, "80.0 GiB")]
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [(999, "", "999"), (312e12, "FLOP/s", "312 TFLOP/s"), (12345, "tok/s", "12.3 ktok/s")],
)
def test_counts(count: float, unit: str, text: str) -> None:
    assert format_count(count, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (8.3e-4, "830 µs"),
        (0.0125, "12.5 ms"),
        (3.2, "3.20 s"),
        (-3.2, "-3.20 s"),
        (125, "2 min"),
        (4320, "1 h 12 min"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
