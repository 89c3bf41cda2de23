"""Peak activations of each rank, which follow from the order of its actions alone.

A stage's activations of one microbatch are held from the start of F to the end of B, or of W where the
backward is split. A rank runs one action at a time, so the count only changes at its own actions and no
durations are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from operator import itemgetter

from planner.schedules.action import Action, Kind, Schedule

_CHANGES = tuple({Kind.F: 1, Kind.B: -1, Kind.W: -1}.get(kind, 0) for kind in Kind)
_KIND = itemgetter(0)


def peak_stage_activations(schedule: Schedule) -> tuple[int, ...]:
    """Return, per rank, the most (stage, microbatch) activations held at once."""
    return tuple(peak_of(actions) for actions in schedule.actions)


def peak_of(actions: Iterable[Action]) -> int:
    """Return the most (stage, microbatch) activations held at once by a rank with these actions."""
    return max(accumulate(map(_CHANGES.__getitem__, map(_KIND, actions)), initial=0))


def peak_activations(schedule: Schedule) -> tuple[float, ...]:
    """Return, per rank, the peak in units of one microbatch through all of the rank's layers."""
    return tuple(peak / schedule.chunks for peak in peak_stage_activations(schedule))
