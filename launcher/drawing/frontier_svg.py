"""Bubble against memory as an SVG picture: what the search found, and where the families lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Protocol

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 900, 480, 70, 46, 56, 40


class Placed(Protocol):
    """A schedule on the plane of memory and bubble."""

    @property
    def name(self) -> str:
        """Family, or auto."""

    @property
    def limit(self) -> float:
        """Memory that it may use, in microbatches per rank."""

    @property
    def bubble_fraction(self) -> float:
        """Share of the cycle that ranks do not compute."""


def frontier_svg(searched: Sequence[Placed], families: Sequence[Placed]) -> str:
    """Return the picture: a stepped line for the search, a labelled dot for each family."""
    points = [*searched, *families]
    most_memory = max(point.limit for point in points)
    most_bubble = max(0.01, *(point.bubble_fraction for point in points))
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(point: Placed) -> tuple[float, float]:
        return (
            _LEFT + across * point.limit / most_memory,
            _TOP + down * (1 - point.bubble_fraction / most_bubble),
        )

    line = ""
    for point in searched:
        x, y = at(point)
        line += f"H{x:.1f}V{y:.1f}" if line else f"M{x:.1f} {y:.1f}"
    line += f"H{_WIDTH - _RIGHT}"
    parts = [
        *_axes(most_memory, most_bubble, across, down),
        f'<path d="{line}" fill="none" stroke="#2b6cd4" stroke-width="2.5"/>',
        *_dots(families, at_points=[at(point) for point in families]),
        f'<text x="{_LEFT + 8}" y="{_TOP - 18}" fill="#2b6cd4" font-weight="600">auto: least bubble found for'
        " each memory limit</text>",
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
        f' height="{_HEIGHT}" role="img" font-family="system-ui,sans-serif" font-size="12" fill="#222">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _axes(most_memory: float, most_bubble: float, across: int, down: int) -> Iterator[str]:
    base = _TOP + down
    yield f'<path d="M{_LEFT} {_TOP}V{base}H{_LEFT + across}" fill="none" stroke="#888"/>'
    for tick in range(5):
        share = tick / 4
        x, y = _LEFT + across * share, base - down * share
        yield f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{most_memory * share:.4g}</text>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{most_bubble * share:.0%}</text>'
        yield f'<path d="M{_LEFT} {y:.1f}H{_LEFT + across}" stroke="#e4e6ea"/>'
    yield (
        f'<text x="{_LEFT + across / 2:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">microbatches held per'
        " rank</text>"
    )
    yield f'<text x="16" y="{_TOP - 18}">bubble</text>'


def _dots(families: Sequence[Placed], at_points: Sequence[tuple[float, float]]) -> Iterator[str]:
    """A dot for each family; names at nearly the same place are written below each other."""
    taken: list[tuple[float, float]] = []
    for family, (x, y) in sorted(zip(families, at_points, strict=True), key=lambda pair: pair[1]):
        label = y - 6
        while any(abs(label - other) < 13 and abs(x - left) < 90 for left, other in taken):
            label += 13
        taken.append((x, label))
        right = x > _WIDTH - _RIGHT - 110
        anchor, shift = ("end", -7) if right else ("start", 7)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d9822b"/>'
        yield (
            f'<text x="{x + shift:.1f}" y="{label:.1f}" text-anchor="{anchor}">{escape(family.name)}</text>'
        )
