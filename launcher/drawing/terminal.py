"""A timeline in the terminal: one row per rank, time to the right.

in colour   cells are coloured by kind, lighter for later chunks, and show the microbatch where it fits
plain       F0 B0---: a letter, the microbatch, dashes to the cell's end; f0 for later chunks; · waits
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from rich.style import Style
from rich.text import Text

from launcher.drawing.packing import pack
from launcher.drawing.palette import NAMES, colour
from planner.schedules import Action, Kind, Timeline

_MOST_ROWS = 48


def draw(timeline: Timeline, *, width: int, colours: bool, per_column: float | None = None) -> list[Text]:
    """Return the lines of a drawing at most `width` columns wide.

    `per_column` is the time of one column, from `column_seconds`, for several timelines on one scale.
    """
    per_column = per_column or column_seconds([timeline], width=width)
    ranks = _shown(len(timeline.starts))
    label = _label_width(timeline)
    columns = min(width - label, math.ceil(timeline.makespan / per_column - 1e-6)) if per_column else 0
    schedule, lines = timeline.schedule, []
    chunks = {s: n for rank in range(schedule.ranks) for n, s in enumerate(schedule.stages_of(rank))}
    for place, rank in enumerate(ranks):
        if place and rank != ranks[place - 1] + 1:
            lines.append(Text(f"{'⋮':>{label - 1}}", style="dim"))
        line = Text(f"rank {rank}".ljust(label), style="bold", no_wrap=True)
        for cells, action in _runs(timeline, rank, columns, per_column):
            chunk = None if action is None else chunks[action.stage]
            line.append_text(_cell(action, chunk, cells, colours))
        lines.append(line)
    text = f"{timeline.makespan:.6g}"
    lines.append(
        Text(" " * label + "0" + text.rjust(max(columns - 1, len(text) + 1)), style="dim", no_wrap=True)
    )
    return lines


def column_seconds(timelines: Sequence[Timeline], *, width: int) -> float:
    """Return the time of one column when `timelines` are drawn on one scale, 0 when nothing takes time.

    The longest fills the width; where all durations are multiples of the shortest, that takes whole columns.
    """
    columns = width - max(map(_label_width, timelines))
    span = max(timeline.makespan for timeline in timelines)
    shares: set[float] = set()  # of the span, so that the unit of time does not matter
    for duration in _durations(timelines):
        if duration < span / columns * (1 - 1e-9):
            return span / columns
        shares.add(round(duration / span, 12))
    if not shares:
        return 0.0
    shortest = min(shares)
    whole = int(columns * shortest + 1e-9)
    regular = all(abs(share / shortest - round(share / shortest)) < 1e-6 for share in shares)
    return span * shortest / whole if whole and regular else span / columns


def _durations(timelines: Sequence[Timeline]) -> Iterator[float]:
    """Yield how long each action takes that takes any time."""
    for timeline in timelines:
        for starts, ends in zip(timeline.starts, timeline.ends, strict=True):
            yield from (end - start for start, end in zip(starts, ends, strict=True) if end > start)


def _label_width(timeline: Timeline) -> int:
    return len(f"rank {len(timeline.starts) - 1} ")


def legend(timelines: Sequence[Timeline], *, width: int, colours: bool) -> list[Text]:
    """Return the lines that explain the cells of `timelines`."""
    entries = []
    for kind in sorted(set[Kind]().union(*(timeline.schedule.kinds for timeline in timelines))):
        entry = Text("  ", Style(bgcolor=colour(kind, 0))) if colours else Text(kind.name)
        entries.append(Text.assemble(entry, f" {NAMES[kind]}"))
    if any(timeline.schedule.chunks > 1 for timeline in timelines):
        entries.append(Text("lighter: later chunks" if colours else "small letters: later chunks"))
    return pack(entries, width=width)


def _shown(ranks: int) -> list[int]:
    """All ranks, or the first and last ones when there are too many for a screen."""
    if ranks <= _MOST_ROWS:
        return list(range(ranks))
    half = _MOST_ROWS // 2
    return [*range(half), *range(ranks - half, ranks)]


def _runs(
    timeline: Timeline, rank: int, columns: int, per_column: float
) -> Iterator[tuple[int, Action | None]]:
    """Yield (columns, action) along the row; the action in the middle of a column stands for it."""
    starts, ends = timeline.starts[rank], timeline.ends[rank]

    def at(column: int) -> int:
        middle = timeline.origin + (column + 0.5) * per_column
        index = bisect_right(starts, middle) - 1
        return index if index >= 0 and middle < ends[index] else -1

    for index, group in itertools.groupby(range(columns), key=at):
        yield len(list(group)), timeline.schedule.actions[rank][index] if index >= 0 else None


def _cell(action: Action | None, chunk: int | None, cells: int, colours: bool) -> Text:
    if action is None or chunk is None:
        return Text(" " * cells) if colours else Text("·" * cells, style="dim")
    number = str(action.microbatch)
    if colours:
        text = number if len(number) + (cells > 2) <= cells else (number[-1] if cells == 1 else "")
        return Text(text.ljust(cells), Style(color="#101010", bgcolor=colour(action.kind, chunk)))
    letter = action.kind.name.lower() if chunk else action.kind.name
    text = letter + number if len(letter + number) <= cells else letter
    return Text(text if len(text) == cells else text.ljust(cells - 1, "-") + " ")
