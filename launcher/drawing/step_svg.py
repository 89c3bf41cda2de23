"""Steps as one SVG picture on one time scale: the predicted above the measured, with the waits of each cell.

The picture may stand in a page: its styles are its own, and its colours follow the page's where it has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from launcher.drawing.palette import phase_of, step_colour, step_name
from launcher.drawing.ticks import tick_shares
from planner.schedules import Cell, StepTimeline
from profiles.units import format_seconds

_WIDTH, _LEFT, _RIGHT = 1080, 64, 136
_TITLE, _AXIS, _GAP, _LEGEND = 28, 24, 16, 20
_CHARACTER = 6.8  # width of a digit of the labels, in pixels
_MOST_CELLS = 6000  # above this, tooltips and labels are left out
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
_STYLE = (
    ".cuboid-steps text{font:12px system-ui,sans-serif;fill:var(--ink,#1d2433)}"
    ".cuboid-steps .t{font-weight:600;font-size:14px}"
    ".cuboid-steps .c{font-size:11px;fill:#0b0b0b;pointer-events:none}"
    ".cuboid-steps .d{fill:var(--soft,#5d6880)}"
    ".cuboid-steps .r{fill:var(--line,#e6e9ef)}"
)


def step_svg(timelines: Sequence[StepTimeline], *, inside_page: bool = False) -> str:
    """Return the picture of `timelines`, the first on top, all to one scale; a file unless `inside_page`."""
    scale = (_WIDTH - _LEFT - _RIGHT) / (max((t.seconds for t in timelines), default=0.0) or 1.0)
    parts: list[str] = []
    top = 4.0
    for timeline in timelines:
        row = max(7.0, min(30.0, 480 / max(1, timeline.ranks)))
        parts += _panel(timeline, top, row, scale)
        top += _TITLE + row * timeline.ranks + _AXIS + _GAP
    shapes, rows = _legend(timelines, top)
    parts += shapes
    height = top + rows * _LEGEND + 8
    return (
        f'<svg class="cuboid-steps"{"" if inside_page else _NAMESPACE} viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' width="{_WIDTH}" height="{height:.0f}" role="img"'
        f' aria-label="{escape(" and ".join(t.title for t in timelines))}"><style>{_STYLE}</style>'
        '<defs><pattern id="cuboid-wait" width="5" height="5" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)"><path d="M0 0v5" stroke="#9aa6bd" stroke-width="2"/></pattern></defs>'
        f'<rect width="100%" height="100%" fill="var(--panel,#fff)"/>{"".join(parts)}</svg>\n'
    )


def _panel(timeline: StepTimeline, top: float, row: float, scale: float) -> Iterator[str]:
    title = f"{timeline.title} · {format_seconds(timeline.seconds).strip()}"
    yield f'<text class="t" x="{_LEFT}" y="{top + 16:.1f}">{escape(title)}</text>'
    end, body = _LEFT + timeline.seconds * scale, top + _TITLE
    columns = (("busy", 46), ("wait", 88), ("idle", 130))
    for name, shift in columns:
        x = _WIDTH - _RIGHT + shift
        yield f'<text class="d" x="{x}" y="{body - 7:.1f}" text-anchor="end">{name}</text>'
    written = sum(map(len, timeline.rows)) <= _MOST_CELLS
    for share, cells in zip(timeline.shares, timeline.rows, strict=True):
        y = body + share.rank * row
        yield f'<rect class="r" x="{_LEFT}" y="{y:.1f}" width="{end - _LEFT:.1f}" height="{row - 3:.1f}"/>'
        if row >= 11 or share.rank % 4 == 0:
            middle = y + row / 2 + 3
            yield f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">rank {share.rank}</text>'
            for (_, shift), value in zip(columns, share[1:4], strict=True):
                text = f"{value / share.step:.0%}" if share.step else ""
                x = _WIDTH - _RIGHT + shift
                yield f'<text class="d" x="{x}" y="{middle:.1f}" text-anchor="end">{text}</text>'
        for cell in cells:
            yield from _cell(timeline, cell, y, row, scale, written)
    yield from _axis(timeline, body + row * timeline.ranks, scale)


def _cell(  # noqa: PLR0917 (private, called once)
    timeline: StepTimeline, cell: Cell, y: float, row: float, scale: float, written: bool
) -> Iterator[str]:
    start, ready, end = (_LEFT + seconds * scale for seconds in (cell.start, cell.ready, cell.end))
    name = f"rank {cell.rank}: {cell.name} ({step_name(cell.kind)})"
    height = row - 3
    if ready - start >= 0.4:
        tip = f"<title>{escape(f'{name}: waits {format_seconds(cell.ready - cell.start)}')}</title>"
        yield (
            f'<rect x="{start:.2f}" y="{y + height * 0.35:.1f}" width="{ready - start:.2f}"'
            f' height="{height * 0.3:.1f}" fill="url(#cuboid-wait)">{tip if written else ""}</rect>'
        )
    if end - ready < 0.15:
        return
    tip = f"<title>{escape(f'{name}: {format_seconds(cell.end - cell.ready)}')}</title>"
    fill = step_colour(cell.kind, timeline.chunks.get(cell.stage, 0))
    yield (
        f'<rect x="{ready:.2f}" y="{y:.1f}" width="{max(end - ready - 0.5, 0.3):.2f}" height="{height:.1f}"'
        f' fill="{fill}">{tip if written else ""}</rect>'
    )
    label = str(cell.microbatch)
    if written and phase_of(cell.kind) is None and end - ready >= len(label) * _CHARACTER + 2 and row >= 12:
        yield (
            f'<text class="c" x="{(ready + end) / 2:.2f}" y="{y + height / 2 + 3.6:.1f}"'
            f' text-anchor="middle">{label}</text>'
        )


def _axis(timeline: StepTimeline, y: float, scale: float) -> Iterator[str]:
    end = _LEFT + timeline.seconds * scale
    yield f'<path d="M{_LEFT} {y:.1f}H{end:.1f}" stroke="#9aa6bd" fill="none"/>'
    for share in tick_shares(end - _LEFT):
        x = _LEFT + (end - _LEFT) * share
        text = escape(format_seconds(timeline.seconds * share).strip() if share else "0")
        yield f'<path d="M{x:.1f} {y:.1f}v4" stroke="#9aa6bd"/>'
        yield f'<text class="d" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{text}</text>'


def _legend(timelines: Sequence[StepTimeline], y: float) -> tuple[list[str], int]:
    """Return the shapes of the legend and how many rows it takes."""
    names: dict[str, str] = {}
    for cell in (cell for timeline in timelines for row in timeline.rows for cell in row):
        if cell.end > cell.ready:
            names.setdefault(step_name(cell.kind), step_colour(cell.kind, 0))
    names["waiting"] = "url(#cuboid-wait)"
    if any(max(timeline.chunks.values(), default=0) for timeline in timelines):
        names["lighter: later chunks of a rank"] = "none"
    shapes, x, rows = [], float(_LEFT), 1
    for name, fill in names.items():
        width = 40 + len(name) * _CHARACTER
        if x + width > _WIDTH:
            x, y, rows = float(_LEFT), y + _LEGEND, rows + 1
        shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="14" height="12" rx="2" fill="{fill}"/>')
        shift = 20 if fill != "none" else 0
        shapes.append(f'<text class="d" x="{x + shift:.1f}" y="{y + 10:.1f}">{escape(name)}</text>')
        x += width
    return shapes, rows
