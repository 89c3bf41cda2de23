"""A scatter of step time against memory: coordinates for the template to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 860, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 12, 34


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One layout; `kind` is chosen, front or other."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Dots, the line through the front, the limit as a vertical line, and ticks."""

    label: str
    width: int
    height: int
    dots: tuple[Dot, ...]
    line: str
    limit: float | None
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is drawn: memory across, time up."""

    memory: float
    seconds: float
    kind: str
    text: str


def scatter(
    label: str,
    points: Sequence[Point],
    *,
    limit: float,
    write_memory: Callable[[float], str],
    write_seconds: Callable[[float], str],
) -> Scatter:
    """Place `points` on axes that begin at zero memory and a little below the least time."""
    most_memory = max(limit, *(point.memory for point in points)) * 1.03
    least = min(point.seconds for point in points) * 0.95
    most = max(point.seconds for point in points) * 1.03

    def across(memory: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * memory / most_memory, 1)

    def up(seconds: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (most - seconds) / (most - least), 1)

    front = sorted((p for p in points if p.kind in {"front", "chosen"}), key=lambda p: p.memory)
    return Scatter(
        label=label,
        width=WIDTH,
        height=HEIGHT,
        dots=tuple(Dot(x=across(p.memory), y=up(p.seconds), kind=p.kind, text=p.text) for p in points),
        line=" ".join(f"{across(p.memory)},{up(p.seconds)}" for p in front),
        limit=across(limit),
        x_ticks=tuple((across(m), write_memory(m)) for m in (limit * k / 4 for k in range(5))),
        y_ticks=tuple((up(s), write_seconds(s)) for s in (least + (most - least) * k / 4 for k in range(5))),
    )
