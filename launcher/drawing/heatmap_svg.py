"""Bubble fractions over ranks and microbatches as an SVG picture: one map a schedule, all on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from launcher.drawing.palette import heat

_CELL, _ROW, _LEFT, _TOP, _GAP, _KEY = 62, 30, 70, 62, 26, 46
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:14px}.d{fill:#666}"
    ".n{fill:#111;text-anchor:middle}"
)

Cells = Mapping[tuple[int, int], float | None]  # (ranks, microbatches) → bubble fraction; None if impossible


def heatmap_svg(maps: Mapping[str, Cells]) -> str:
    """Return the picture of `maps`, by the name of the schedule."""
    body: list[str] = []
    top, width = 8, 2 * _LEFT + 6 * _CELL
    for name, cells in maps.items():
        rows, columns = sorted({p for p, _ in cells}), sorted({m for _, m in cells})
        body += _map(name, cells, rows, columns, top)
        top += _TOP + _ROW * len(rows) + _GAP
        width = max(width, _LEFT + _CELL * len(columns) + 16)
    body += _key(top)
    height = top + _KEY
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(body)}</svg>\n"
    )


def _map(name: str, cells: Cells, rows: list[int], columns: list[int], top: int) -> Iterator[str]:
    yield f'<text class="t" x="{_LEFT}" y="{top + 16}">{escape(name)}</text>'
    yield f'<text class="d" x="{_LEFT}" y="{top + 36}">microbatches</text>'
    yield f'<text class="d" x="{_LEFT - 10}" y="{top + _TOP - 8}" text-anchor="end">ranks</text>'
    for j, microbatches in enumerate(columns):
        yield f'<text class="n" x="{_LEFT + (j + 0.5) * _CELL}" y="{top + _TOP - 8}">{microbatches}</text>'
    for i, ranks in enumerate(rows):
        y = top + _TOP + i * _ROW
        yield f'<text x="{_LEFT - 10}" y="{y + 19}" text-anchor="end">{ranks}</text>'
        for j, microbatches in enumerate(columns):
            bubble = cells[ranks, microbatches]
            text = "–" if bubble is None else f"{bubble:.0%}"
            words = "impossible" if bubble is None else f"bubble {bubble:.1%}"
            yield (
                f'<rect x="{_LEFT + j * _CELL}" y="{y}" width="{_CELL - 2}" height="{_ROW - 2}" rx="3"'
                f' fill="{"#eef0f3" if bubble is None else heat(bubble)}"><title>'
                f"{escape(f'{name}: {ranks} ranks, {microbatches} microbatches: {words}')}</title></rect>"
                f'<text class="n" x="{_LEFT + (j + 0.5) * _CELL - 1}" y="{y + 19}">{text}</text>'
            )


def _key(top: int) -> Iterator[str]:
    """The scale of the colours, from no bubble to half of the time and more."""
    steps = 40
    for step in range(steps):
        yield (
            f'<rect x="{_LEFT + step * 6}" y="{top}" width="6.5" height="12"'
            f' fill="{heat(0.5 * step / (steps - 1))}"/>'
        )
    for share, text in ((0.0, "0%"), (0.5, "25%"), (1.0, "50% and more")):
        anchor = "start" if share == 0 else "middle"
        yield (
            f'<text class="d" x="{_LEFT + share * steps * 6:.0f}" y="{top + 28}" text-anchor="{anchor}">'
            f"{text}</text>"
        )
