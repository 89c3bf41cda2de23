"""A cost table as one SVG picture: layer times over the microbatch, message times over their size.

Both axes are logarithmic; points are medians with the quartile distance as a bar, and the lines through the
messages are their fits, so that what does not follow latency and bandwidth is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from planner.link_fits import LinkFit, fit_links
from profiles.costs import Collective, CostTable
from profiles.units import format_bytes, format_seconds

_WIDTH, _HEIGHT = 1100, 460
_LEFT, _TOP, _BOTTOM, _LEGEND = 72, 34, 46, 190
_COLOURS = ("#4c83db", "#2e9e6b", "#de961e", "#a860c8", "#d4534f", "#1aa3a3", "#7a7a7a", "#b8860b")
_STYLE = "text{font:11px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:14px}.d{fill:#666}"


@dataclass(frozen=True, kw_only=True)
class _Series:
    name: str
    points: tuple[tuple[float, float, float], ...]  # x, seconds, spread
    fit: LinkFit | None = None


def costs_svg(costs: CostTable) -> str:
    """Return the picture of `costs`: a chart for each kind that there is."""
    panels = [
        (f"One block of {costs.model.name}: time over microbatch", _layers(costs), lambda x: f"{x:.0f}"),
        (f"Messages among {costs.concurrent_ranks} ranks: time over size", _messages(costs), format_bytes),
    ]
    panels = [panel for panel in panels if panel[1]]  # imported costs are of messages alone
    body: list[str] = []
    for index, (title, series, write) in enumerate(panels):
        body += _Panel(series, index * _HEIGHT).draw(title, write)
    height = _HEIGHT * max(1, len(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(body)}</svg>\n"
    )


def _layers(costs: CostTable) -> list[_Series]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    for cost in costs.layers:
        if cost.component == "block" and cost.phase in {"forward", "backward"}:
            variant = " sp" if cost.sequence_parallel else ""
            name = f"{cost.phase}, tp {cost.tp}{variant}, {cost.precision}"
            found.setdefault(name, []).append((cost.microbatch, cost.seconds, cost.spread_seconds))
    return [_Series(name=name, points=tuple(sorted(points))) for name, points in found.items()]


def _messages(costs: CostTable) -> list[_Series]:
    fits = {(fit.operation, fit.ranks, fit.groups, fit.stride): fit for fit in fit_links(costs)}
    found: dict[tuple[Collective, int, int, int], list[tuple[float, float, float]]] = {}
    for cost in costs.collectives:
        key = (cost.operation, cost.ranks, cost.groups, cost.stride)
        found.setdefault(key, []).append((cost.message_bytes, cost.seconds, cost.spread_seconds))
    return [
        _Series(
            name=f"{operation}, {groups} × {ranks}" + (f", {stride} apart" if stride > 1 else ""),
            points=tuple(sorted(points)),
            fit=fits.get((operation, ranks, groups, stride)),
        )
        for (operation, ranks, groups, stride), points in found.items()
    ]


class _Panel:
    """One chart: scales and shapes."""

    def __init__(self, series: Sequence[_Series], top: int) -> None:
        self._series, self._top = series, top
        xs = [x for one in series for x, _, _ in one.points]
        ys = [y for one in series for _, y, _ in one.points]
        self._x = _decades(min(xs), max(xs), 2.0)
        self._y = _decades(min(ys), max(ys), 10.0)

    def draw(self, title: str, write: object) -> Iterator[str]:
        """Yield the shapes of the chart; `write` turns an x into text."""
        assert callable(write)
        yield f'<text class="t" x="{_LEFT}" y="{self._top + 20}">{escape(title)}</text>'
        for value in _ticks(*self._y, 10.0):
            y = self._down(value)
            yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _LEGEND}" stroke="#e4e6ea"/>'
            label = escape(format_seconds(value))
            yield f'<text class="d" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        ticks = list(_ticks(*self._x, 2.0))
        for value in ticks[:: max(1, len(ticks) // 9)]:
            x = self._across(value)
            label = escape(write(value))
            yield (
                f'<text class="d" x="{x:.1f}" y="{self._top + _HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
                f"{label}</text>"
            )
        for index, one in enumerate(self._series):
            yield from self._line(one, _COLOURS[index % len(_COLOURS)], index)

    def _line(self, one: _Series, colour: str, index: int) -> Iterator[str]:
        curve = [(x, one.fit.seconds(x) if one.fit else y) for x, y, _ in one.points]
        path = "L".join(f"{self._across(x):.1f} {self._down(y):.1f}" for x, y in curve)
        dash = ' stroke-dasharray="5 4"' if one.fit else ""
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'
        for x, y, spread in one.points:
            across, low, high = self._across(x), max(y - spread / 2, y / 3), y + spread / 2
            yield (
                f'<path d="M{across:.1f} {self._down(low):.1f}V{self._down(high):.1f}" stroke="{colour}"/>'
                f'<circle cx="{across:.1f}" cy="{self._down(y):.1f}" r="3" fill="{colour}">'
                f"<title>{escape(f'{one.name}: {format_seconds(y)}')}</title></circle>"
            )
        row = self._top + _TOP + 14 * index + 8
        yield (
            f'<rect x="{_WIDTH - _LEGEND + 12}" y="{row - 9}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{_WIDTH - _LEGEND + 28}" y="{row}">{escape(one.name)}</text>'
        )

    def _across(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (_WIDTH - _LEGEND - _LEFT) * math.log(value / low) / math.log(high / low)

    def _down(self, value: float) -> float:
        low, high = self._y
        share = math.log(max(value, low) / low) / math.log(high / low)
        return self._top + _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * min(1.0, share)


def _decades(low: float, high: float, base: float) -> tuple[float, float]:
    """Widen a range to whole powers of `base`, at least one apart."""
    first, last = math.floor(math.log(low, base) + 1e-9), math.ceil(math.log(high, base) - 1e-9)
    return base**first, base ** max(last, first + 1)


def _ticks(low: float, high: float, base: float) -> Iterator[float]:
    value = low
    while value <= high * (1 + 1e-9):
        yield value
        value *= base
