"""Titles of tables: whole where the console has room, wrapped where it has not."""

from __future__ import annotations

import io

from rich.console import Console

from launcher.console import table


def shown(title: str, width: int) -> list[str]:
    grid = table(title)
    grid.add_column("a")
    grid.add_row("1")
    console = Console(file=io.StringIO(), width=width)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_title_may_be_longer_than_its_table() -> None:
    assert shown("time of the slowest rank [s]", 80)[0] == "time of the slowest rank [s]"


def test_a_title_is_wrapped_between_words_at_the_edge_of_the_console() -> None:
    assert [line.rstrip() for line in shown("time of the slowest rank", 16)[:2]] == [
        "time of the",
        "slowest rank",
    ]
