"""Where the ticks of a time axis lie."""

from __future__ import annotations

_LABEL = 64  # pixels that a label takes, with room to the next


def tick_shares(width: float) -> tuple[float, ...]:
    """Return ticks of an axis `width` pixels long, as shares of it: as many as labels have room beside."""
    for parts in (4, 2, 1):
        if width >= parts * _LABEL:
            return tuple(tick / parts for tick in range(parts + 1))
    return (1.0,)
