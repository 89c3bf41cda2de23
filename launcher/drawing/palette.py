"""Colours of the kinds of action; a later chunk of a rank is lighter."""

from __future__ import annotations

from planner.schedules import Kind

_COLOURS = {
    Kind.F: (76, 131, 219),
    Kind.B: (46, 158, 107),
    Kind.I: (26, 163, 163),
    Kind.W: (222, 150, 30),
    Kind.U: (168, 96, 200),
}
_LIGHTER = (0.0, 0.38, 0.58, 0.7)

NAMES = {
    Kind.F: "forward",
    Kind.B: "backward",
    Kind.I: "input gradient",
    Kind.W: "weight gradient",
    Kind.U: "weight update",
}


def colour(kind: Kind, chunk: int) -> str:
    """Return the colour of a cell as #rrggbb."""
    share = _LIGHTER[min(chunk, len(_LIGHTER) - 1)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in _COLOURS[kind])
