"""A timeline in the terminal: one row per rank, time to the right.

in colour   cells are coloured by kind, lighter for later chunks, and show the microbatch where it fits
plain       F0 B0---: a letter, the microbatch, dashes to the cell's end; f0 for later chunks; · waits
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator

from rich.style import Style
from rich.text import Text

from launcher.drawing.palette import NAMES, colour
from planner.schedules import Action, Timeline

_MOST_ROWS = 48


def draw(timeline: Timeline, *, width: int, colours: bool, span: float | None = None) -> list[Text]:
    """Return the lines of a drawing at most `width` columns wide.

    `span` is the time that fills the width, for several timelines on one scale; the makespan where left out.
    """
    ranks = _shown(len(timeline.starts))
    label = len(f"rank {max(ranks)} ")
    columns, per_column = _scale(timeline, width - label, span or timeline.makespan)
    lines = []
    for place, rank in enumerate(ranks):
        if place and rank != ranks[place - 1] + 1:
            lines.append(Text(f"{'⋮':>{label - 1}}", style="dim"))
        line = Text(f"rank {rank}".ljust(label), style="bold", no_wrap=True)
        for cells, action in _runs(timeline, rank, columns, per_column):
            line.append_text(_cell(timeline, action, cells, colours))
        lines.append(line)
    end = min(columns, round(timeline.makespan / per_column)) if per_column else 0
    text = f"{timeline.makespan:.6g}"
    lines.append(Text(" " * label + "0" + text.rjust(max(end - 1, len(text) + 1)), style="dim", no_wrap=True))
    return lines


def legend(timeline: Timeline, *, colours: bool) -> Text:
    """Return one line that explains the cells of `timeline`."""
    kinds = sorted({action.kind for row in timeline.schedule.actions for action in row})
    line = Text()
    for kind in kinds:
        if colours:
            line.append("  ", Style(bgcolor=colour(kind, 0)))
            line.append(f" {NAMES[kind]}   ")
        else:
            line.append(f"{kind.name} {NAMES[kind]}   ")
    if timeline.schedule.chunks > 1:
        line.append("lighter: later chunks" if colours else "small letters: later chunks")
    return line


def _shown(ranks: int) -> list[int]:
    """All ranks, or the first and last ones when there are too many for a screen."""
    if ranks <= _MOST_ROWS:
        return list(range(ranks))
    half = _MOST_ROWS // 2
    return [*range(half), *range(ranks - half, ranks)]


def _scale(timeline: Timeline, columns: int, span: float) -> tuple[int, float]:
    """Return how many columns to use and the time of one; whole ones per shortest action if possible."""
    if span <= 0:
        return 0, 0.0
    shortest = min(
        (
            end - start
            for starts, ends in zip(timeline.starts, timeline.ends, strict=True)
            for start, end in zip(starts, ends, strict=True)
            if end > start
        ),
        default=span,
    )
    whole = int(columns * shortest / span)
    if whole >= 1:
        return min(columns, round(span / shortest * whole)), shortest / whole
    return columns, span / columns


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


def _cell(timeline: Timeline, action: Action | None, cells: int, colours: bool) -> Text:
    if action is None:
        return Text(" " * cells) if colours else Text("·" * cells, style="dim")
    schedule = timeline.schedule
    chunk = schedule.stages_of(schedule.placement[action.stage]).index(action.stage)
    number = str(action.microbatch)
    if colours:
        text = number if len(number) + (cells > 2) <= cells else (number[-1] if cells == 1 else "")
        return Text(text.ljust(cells), Style(color="#101010", bgcolor=colour(action.kind, chunk)))
    letter = action.kind.name.lower() if chunk else action.kind.name
    text = letter + number if len(letter + number) <= cells else letter
    return Text(text if len(text) == cells else text.ljust(cells - 1, "-") + " ")
