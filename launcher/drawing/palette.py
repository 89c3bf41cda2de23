"""Colours of the kinds of action, a later chunk of a rank lighter, and of what lies around the schedule."""

from __future__ import annotations

from planner.schedules import Kind

_COLOURS = {
    Kind.F: (76, 131, 219),
    Kind.B: (46, 158, 107),
    Kind.I: (26, 163, 163),
    Kind.W: (222, 150, 30),
    Kind.U: (168, 96, 200),
}
_HEAT = ((96, 190, 124), (240, 208, 104), (226, 98, 90))
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


def heat(bubble: float) -> str:
    """Return the colour of a bubble fraction: green for none, through yellow to red for a half and more."""
    place = min(bubble / 0.5, 1.0) * (len(_HEAT) - 1)
    lower = min(int(place), len(_HEAT) - 2)
    parts = zip(_HEAT[lower], _HEAT[lower + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - lower)):02x}" for a, b in parts)


PHASES = {
    "data": ("#8a94a6", "data"),
    "gradients": ("#c4566e", "sum of gradients"),
    "norm": ("#9a7fd1", "norm and clipping"),
    "optimizer": ("#a860c8", "optimizer"),
    "status": ("#b3a37a", "agreement"),
    "messages": ("#5d6880", "messages"),
}


def phase_of(kind: str) -> str | None:
    """Return the phase that a cell of a step belongs to, None for the schedule's own computation."""
    if kind in Kind.__members__:
        return None if Kind[kind].is_compute else ("gradients" if kind == "REDUCE" else "messages")
    return kind if kind in PHASES else "messages"


def step_colour(kind: str, chunk: int) -> str:
    """Return the colour of a cell of a step as #rrggbb."""
    phase = phase_of(kind)
    return colour(Kind[kind], chunk) if phase is None else PHASES[phase][0]


def step_name(kind: str) -> str:
    """Return the words for a cell of a step."""
    phase = phase_of(kind)
    return NAMES[Kind[kind]] if phase is None else PHASES[phase][1]
