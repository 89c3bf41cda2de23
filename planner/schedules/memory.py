"""Peak activations of each rank, which follow from the order of its actions alone.

A stage's activations of one microbatch are held from the start of F to the end of B, or of W where the
backward is split. A rank runs one action at a time, so the count only changes at its own actions and no
durations are needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from planner.schedules.action import Action, Kind, Schedule

_F, _B, _W = int(Kind.F), int(Kind.B), int(Kind.W)


def peak_stage_activations(schedule: Schedule) -> tuple[int, ...]:
    """Return, per rank, the most (stage, microbatch) activations held at once."""
    return tuple(peak_of(actions) for actions in schedule.actions)


def peak_of(actions: Iterable[Action]) -> int:
    """Return the most (stage, microbatch) activations held at once by a rank with these actions."""
    held = peak = 0
    for kind, _, _ in actions:
        if kind == _F:
            held += 1
            if held > peak:  # noqa: PLR1730 (max() takes twice as long)
                peak = held
        elif kind in (_B, _W):
            held -= 1
    return peak


def peak_activations(schedule: Schedule) -> tuple[float, ...]:
    """Return, per rank, the peak in units of one microbatch through all of the rank's layers."""
    return tuple(peak / schedule.chunks for peak in peak_stage_activations(schedule))
