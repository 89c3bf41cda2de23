"""Timelines as one SVG picture, stacked on one time scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from launcher.console import counted
from launcher.drawing.palette import NAMES, colour
from launcher.drawing.ticks import tick_shares
from planner.schedules import Kind, Timeline

_WIDTH, _LEFT, _RIGHT = 1280, 70, 150
_TITLE, _AXIS, _GAP, _LEGEND = 30, 26, 18, 34
_MOST_CELLS = 6000  # above this, cells of one colour become one path without tooltips
_CHARACTER = 6.2  # width of a digit of the labels, in pixels


def svg(timelines: Sequence[Timeline]) -> str:
    """Return the picture of `timelines`, the first on top."""
    span = max((timeline.makespan for timeline in timelines), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / span
    parts: list[str] = []
    top = 8.0
    for timeline in timelines:
        row = max(8.0, min(22.0, 640 / timeline.schedule.ranks))
        parts += _panel(timeline, top, row, scale)
        top += _TITLE + row * timeline.schedule.ranks + _AXIS + _GAP
    parts += _legend(timelines, top)
    height = top + _LEGEND
    style = (
        "text{font:11px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:14px}"
        ".c{font-size:10px;fill:#0b0b0b;pointer-events:none}.d{fill:#666}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}"'
        f' height="{height:.0f}" role="img"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(timeline: Timeline, top: float, row: float, scale: float) -> Iterator[str]:
    schedule = timeline.schedule
    title = (
        f"{schedule.name} · {counted(schedule.ranks, 'rank')}"
        f" · {counted(schedule.microbatches, 'microbatch', 'microbatches')}"
        f" · cycle {timeline.cycle:.6g} · bubble {timeline.bubble_fraction:.1%}"
        f" · peak {max(timeline.peak_activations):.4g}"
    )
    yield f'<text class="t" x="{_LEFT}" y="{top + 16:.1f}">{escape(title)}</text>'
    body = top + _TITLE
    end = _LEFT + timeline.makespan * scale
    yield _beside(top + 24, "busy", "peak")
    for rank in range(schedule.ranks):
        y = body + rank * row
        yield (
            f'<rect x="{_LEFT}" y="{y:.1f}" width="{end - _LEFT:.1f}" height="{row - 2:.1f}" fill="#eef0f3"/>'
        )
        if row >= 11 or rank % 8 == 0:
            middle = y + row / 2 + 3
            share = timeline.busy[rank] / timeline.cycle if timeline.cycle else 0.0
            yield f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">rank {rank}</text>'
            yield _beside(middle, f"{share:.0%}", f"{timeline.peak_activations[rank]:.3g}")
    if sum(map(len, schedule.actions)) > _MOST_CELLS:
        yield from _paths(timeline, body, row, scale)
    else:
        yield from _cells(timeline, body, row, scale)
    yield from _axis(timeline, body + row * schedule.ranks, scale)


def _beside(y: float, busy: str, peak: str) -> str:
    """Two columns of text at the right edge."""
    return "".join(
        f'<text class="d" x="{_WIDTH - _RIGHT + shift}" y="{y:.1f}" text-anchor="end">{text}</text>'
        for text, shift in ((busy, 60), (peak, 110))
    )


def _cells(timeline: Timeline, body: float, row: float, scale: float) -> Iterator[str]:
    schedule = timeline.schedule
    for rank, actions in enumerate(schedule.actions):
        stages = schedule.stages_of(rank)
        y = body + rank * row
        for action, start, end in zip(actions, timeline.starts[rank], timeline.ends[rank], strict=True):
            x, width = _LEFT + (start - timeline.origin) * scale, (end - start) * scale
            gap = min(0.6, width / 5)  # to the next cell
            fill = colour(action.kind, stages.index(action.stage))
            yield (
                f'<rect x="{x:.2f}" y="{y:.1f}" width="{width - gap:.2f}" height="{row - 2:.1f}"'
                f' fill="{fill}"><title>rank {rank}: {action} ({NAMES[action.kind]}, stage {action.stage},'
                f" microbatch {action.microbatch}) {start:.6g} to {end:.6g}</title></rect>"
            )
            label = str(action.microbatch)
            if width >= len(label) * _CHARACTER + 2 and row >= 12:
                yield (
                    f'<text class="c" x="{x + width / 2:.2f}" y="{y + row / 2 + 2.6:.1f}"'
                    f' text-anchor="middle">{label}</text>'
                )


def _paths(timeline: Timeline, body: float, row: float, scale: float) -> Iterator[str]:
    schedule = timeline.schedule
    shapes: dict[str, list[str]] = {}
    for rank, actions in enumerate(schedule.actions):
        stages = schedule.stages_of(rank)
        y = body + rank * row
        for action, start, end in zip(actions, timeline.starts[rank], timeline.ends[rank], strict=True):
            x, width = _LEFT + (start - timeline.origin) * scale, (end - start) * scale
            shapes.setdefault(colour(action.kind, stages.index(action.stage)), []).append(
                f"M{x:.2f} {y:.1f}h{width:.2f}v{row - 2:.1f}h{-width:.2f}z"
            )
    for fill, shape in shapes.items():
        yield f'<path fill="{fill}" d="{"".join(shape)}"/>'


def _axis(timeline: Timeline, y: float, scale: float) -> Iterator[str]:
    end = _LEFT + timeline.makespan * scale
    yield f'<path d="M{_LEFT} {y:.1f}H{end:.1f}" stroke="#999" fill="none"/>'
    for share in tick_shares(end - _LEFT):
        x = _LEFT + (end - _LEFT) * share
        yield f'<path d="M{x:.1f} {y:.1f}v4" stroke="#999"/>'
        yield (
            f'<text class="d" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">'
            f"{timeline.makespan * share:.5g}</text>"
        )


def _legend(timelines: Sequence[Timeline], y: float) -> Iterator[str]:
    kinds: set[Kind] = {action.kind for t in timelines for row in t.schedule.actions for action in row}
    x = float(_LEFT)
    for kind in sorted(kinds):
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="14" height="12" fill="{colour(kind, 0)}"/>'
        yield f'<text x="{x + 20:.1f}" y="{y + 10:.1f}">{kind.name} {NAMES[kind]}</text>'
        x += 40 + len(NAMES[kind]) * 7
    if any(timeline.schedule.chunks > 1 for timeline in timelines):
        yield f'<text class="d" x="{x:.1f}" y="{y + 10:.1f}">lighter: later chunks of the rank</text>'
