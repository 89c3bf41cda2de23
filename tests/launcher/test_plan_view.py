"""The ranked table on consoles of several widths: nothing is cut, no column is lost."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from launcher.plan_view import COLUMNS, ranking

ROWS = [
    {
        "": "▶ 1",
        "tp·pp·dp": "8·16·16",
        "micro": "16",
        "schedule": "interleaved-1f1b ×8",
        "options": "recompute full zero1 +23 alike",
        "step": "4.24 s",
        "MFU": "45.3%",
        "memory": "77.8 GiB 98% !",
        "limited by": "tp traffic 26%, dp traffic 5%",
    },
    {
        "": "  2",
        "tp·pp·dp": "1·1·16",
        "micro": "1",
        "schedule": "1f1b",
        "options": "–",
        "step": "120 ms",
        "MFU": "5.3%",
        "memory": "512 MiB 1%",
        "limited by": "compute",
    },
]


def shown(width: int, rows: list[dict[str, str]] = ROWS) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(ranking("one model", rows, console))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 110, 120, 160])
def test_every_value_is_shown_whole(width: int) -> None:
    lines = shown(width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for name in (column.name for column in COLUMNS):
        assert name in text
        for row in ROWS:
            for word in row[name].replace("–", "").split():
                assert word in text


def test_a_wide_console_takes_a_line_a_layout_and_a_narrow_one_stacks() -> None:
    assert sum("interleaved-1f1b" in line and "limited" not in line for line in shown(160)) == 1
    assert "recompute full zero1 +23 alike   4.24 s" in "\n".join(shown(160))
    stacked = shown(80)
    first = next(n for n, line in enumerate(stacked) if "interleaved" in line)
    assert "4.24 s" in stacked[first]
    assert "recompute full" in stacked[first + 1]


def test_a_column_without_a_word_to_say_is_left_out() -> None:
    assert "options" not in "\n".join(shown(160, ROWS[1:]))
    assert "limited by" not in "\n".join(shown(80, [row | {"limited by": ""} for row in ROWS]))
