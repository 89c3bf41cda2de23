"""Coordinates of the charts of a page: pure functions from numbers to shapes; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 860
COLOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_NAME_WIDTH, _TEXT_WIDTH, _ROW_HEIGHT = 130, 90, 26
_LINE_HEIGHT, _LINE_LEFT, _LINE_BOTTOM = 200, 70, 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """One coloured stretch of a bar, in pixels."""

    name: str
    x: float
    width: float
    colour: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of stacked parts."""

    name: str
    y: int
    parts: tuple[Part, ...]
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Horizontal stacked bars, all to one scale."""

    label: str
    width: int
    height: int
    bars: tuple[Bar, ...]
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One horizontal grid line."""

    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """One curve over steps; `mark` is the height of a dashed line, if any."""

    label: str
    width: int
    height: int
    left: int
    points: str
    ticks: tuple[Tick, ...]
    mark: float | None
    first: int
    last: int


def bar_chart(
    label: str, rows: Sequence[tuple[str, Mapping[str, float]]], write: Callable[[float], str]
) -> BarChart:
    """Stack the parts of every row; a part keeps its colour in all rows, one zero everywhere goes.

    `rows` are (name, part → value).
    """
    names = [
        name
        for name in dict.fromkeys(n for _, parts in rows for n in parts)
        if any(parts.get(name) for _, parts in rows)
    ]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    most = max((sum(parts.values()) for _, parts in rows), default=0.0) or 1.0
    scale = (WIDTH - _NAME_WIDTH - _TEXT_WIDTH) / most
    bars = []
    for index, (row_name, parts) in enumerate(rows):
        x, shapes = float(_NAME_WIDTH), []
        for name in names:
            value = parts.get(name, 0.0)
            width = round(value * scale, 1)
            shapes.append(
                Part(name=name, x=round(x, 1), width=width, colour=colours[name], text=write(value))
            )
            x += value * scale
        bars.append(
            Bar(
                name=row_name,
                y=index * _ROW_HEIGHT + 4,
                parts=tuple(shapes),
                end=round(x, 1),
                text=write(sum(parts.values())),
            )
        )
    return BarChart(
        label=label,
        width=WIDTH,
        height=len(rows) * _ROW_HEIGHT + 4,
        bars=tuple(bars),
        legend=tuple(colours.items()),
    )


def line_chart(
    label: str,
    points: Sequence[tuple[int, float]],
    write: Callable[[float], str],
    *,
    mark: float | None = None,
    from_zero: bool = False,
) -> LineChart | None:
    """Draw (step, value) points; None when there are fewer than two finite ones."""
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if len(points) < 2:
        return None
    values = [value for _, value in points] + ([mark] if mark is not None else [])
    low, high = (0.0 if from_zero else min(values)), max(values)
    span = (high - low) or 1.0
    first, last = points[0][0], points[-1][0]

    def height(value: float) -> float:
        return round(8 + (_LINE_HEIGHT - _LINE_BOTTOM - 12) * (high - value) / span, 1)

    def place(step: int) -> float:
        return round(_LINE_LEFT + (WIDTH - _LINE_LEFT) * (step - first) / max(1, last - first), 1)

    return LineChart(
        label=label,
        width=WIDTH,
        height=_LINE_HEIGHT,
        left=_LINE_LEFT,
        points=" ".join(f"{place(step)},{height(value)}" for step, value in points),
        ticks=tuple(Tick(y=height(value), text=write(value)) for value in (low, low + span / 2, low + span)),
        mark=height(mark) if mark is not None else None,
        first=first,
        last=last,
    )
