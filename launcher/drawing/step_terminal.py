"""Steps in the terminal: one row per rank, time to the right, all to one scale.

in colour   cells are coloured by kind, lighter for later chunks; waits are dots
plain       F0 B0---: a letter and the microbatch; phases by their first letter; · waits
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from rich.style import Style
from rich.text import Text

from launcher.drawing.packing import pack
from launcher.drawing.palette import phase_of, step_colour, step_name
from planner.schedules import Cell, StepTimeline
from profiles.units import format_seconds

_MOST_RANKS = 32
_SHARES = len("  100%  100%  100%")


def draw_steps(timelines: Sequence[StepTimeline], *, width: int, colours: bool) -> list[Text]:
    """Return the lines of the drawing, at most `width` columns wide, with the shares of every rank."""
    label = max(len(f"rank {t.ranks - 1} ") for t in timelines)
    columns = max(10, width - label - _SHARES)
    per_column = max(t.seconds for t in timelines) / columns
    lines: list[Text] = []
    for timeline in timelines:
        used = max(1, round(timeline.seconds / per_column)) if per_column else 1
        head = Text(timeline.title.ljust(label + used), style="bold", no_wrap=True)
        head.append("  busy  wait  idle", style="dim")
        lines.append(head)
        for share in timeline.shares[:_MOST_RANKS]:
            line = Text(f"rank {share.rank}".ljust(label), style="bold", no_wrap=True)
            for count, cell, waits in _runs(timeline, share.rank, used, per_column):
                line.append_text(_cell(timeline, cell, count, waits=waits, colours=colours))
            whole = share.step or 1.0
            line.append("".join(f"  {value / whole:4.0%}" for value in share[1:4]), style="dim")
            lines.append(line)
        if timeline.ranks > _MOST_RANKS:
            lines.append(Text(f"… and {timeline.ranks - _MOST_RANKS} more ranks", style="dim"))
        end = format_seconds(timeline.seconds).strip()
        lines.append(Text(" " * label + "0" + end.rjust(max(used - 1, len(end) + 1)), style="dim"))
    return lines + _legend(timelines, width=width, colours=colours)


def _runs(
    timeline: StepTimeline, rank: int, columns: int, per_column: float
) -> Iterator[tuple[int, Cell | None, bool]]:
    """Yield (columns, cell, whether it waits) along the row; the middle of a column stands for it."""
    row = timeline.rows[rank]
    starts = [cell.start for cell in row]

    def at(column: int) -> tuple[int, bool]:
        middle = (column + 0.5) * per_column
        index = bisect_right(starts, middle) - 1
        if index < 0 or middle >= row[index].end:
            return -1, False
        return index, middle < row[index].ready

    for (index, waits), group in itertools.groupby(range(columns), key=at):
        yield len(list(group)), row[index] if index >= 0 else None, waits


def _cell(timeline: StepTimeline, cell: Cell | None, count: int, *, waits: bool, colours: bool) -> Text:
    if cell is None:
        return Text(" " * count)
    if waits:
        return Text("·" * count, style="dim")
    inside = phase_of(cell.kind) is None
    chunk = timeline.chunks.get(cell.stage, 0)
    number = str(cell.microbatch) if inside else ""
    if colours:
        text = number if len(number) + (count > 2) <= count else ""
        return Text(text.ljust(count), Style(color="#101010", bgcolor=step_colour(cell.kind, chunk)))
    letter = _letter(cell.kind)
    letter = letter.lower() if inside and chunk else letter
    text = letter + number if len(letter + number) <= count else letter
    return Text(text if len(text) == count else text.ljust(count - 1, "-") + " ")


def _letter(kind: str) -> str:
    return kind if phase_of(kind) is None else step_name(kind)[0]


def _legend(timelines: Sequence[StepTimeline], *, width: int, colours: bool) -> list[Text]:
    kinds = {
        step_name(cell.kind): cell.kind
        for timeline in timelines
        for cell in timeline.cells
        if cell.end > cell.ready
    }
    entries = []
    for name, kind in kinds.items():
        entry = Text("  ", Style(bgcolor=step_colour(kind, 0))) if colours else Text(_letter(kind))
        entries.append(Text.assemble(entry, f" {name}"))
    return pack([*entries, Text("· waiting")], width=width)
