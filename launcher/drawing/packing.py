"""Entries of a legend, put on as few lines of the terminal as hold them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

_GAP = "   "


def pack(entries: Iterable[Text], *, width: int) -> list[Text]:
    """Return lines at most `width` columns wide; only an entry that is wider by itself makes a longer one."""
    lines: list[Text] = []
    for entry in entries:
        if lines and lines[-1].cell_len + len(_GAP) + entry.cell_len <= width:
            lines[-1].append(_GAP).append_text(entry)
        else:
            lines.append(entry.copy())
    return lines
