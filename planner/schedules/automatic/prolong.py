"""A long schedule from a short one: what a rank repeats in its steady state, repeated more often.

    short   warm-up │ round h │ round h + 1 │ … cool-down
    long    warm-up │ round h │ round h + 1 │ … │ round h + n │ … cool-down, its microbatches n later

A round of a rank is what lies between two forwards of its first stage. It holds one forward and one backward
of each of the rank's stages, so that each microbatch is still computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from planner.schedules.action import Action, Kind, Schedule, new_action
from planner.schedules.timeline import Timeline

PERIODS = (1, 2, 3, 4, 6)  # microbatches after which a steady state may repeat
COMMON = 12  # a multiple of them all
SETTLED = 3  # microbatches per rank after which it is looked for


def short_enough(ranks: int, microbatches: int) -> int:
    """Return the microbatches of a short schedule that may be prolonged to `microbatches`."""
    return microbatches - max(0, microbatches - SETTLED * ranks) // COMMON * COMMON


def prolong(short: Schedule, microbatches: int) -> Schedule | None:
    """Return `short` for `microbatches`, or None when its last rounds are not alike on every rank."""
    more = microbatches - short.microbatches
    for period in PERIODS:
        if more % period == 0:
            rows = [_prolonged(short, rank, period, more) for rank in range(short.ranks)]
            if all(row is not None for row in rows):
                actions = tuple(tuple(row) for row in rows if row is not None)
                return replace(short, microbatches=microbatches, actions=actions)
    return None


def steady_rise(timeline: Timeline, microbatches: int) -> float | None:
    """Return the seconds that so many more `microbatches` add to a timeline, or None where it is not steady.

    In a steady state every rank begins a round by the same time later than the one before: the forwards of
    all ranks' first stages are compared over the last two times so many microbatches.
    """
    rises = []
    for rank, actions in enumerate(timeline.schedule.actions):
        first = timeline.schedule.placement.index(rank)
        starts = [
            start
            for (kind, stage, _), start in zip(actions, timeline.starts[rank], strict=True)
            if kind == Kind.F and stage == first
        ]
        if len(starts) <= 2 * microbatches:
            return None
        rises += [starts[-1 - at] - starts[-1 - at - microbatches] for at in (0, microbatches)]
    return max(rises) if max(rises) - min(rises) <= 1e-9 * max(rises) else None


def _prolonged(short: Schedule, rank: int, period: int, more: int) -> list[Action] | None:
    """Return a rank's actions with `more` microbatches put in before its last rounds, or None."""
    row, own = short.actions[rank], short.stages_of(rank)
    begin = short.microbatches - 3 * period
    starts = [at for at, (kind, stage, _) in enumerate(row) if kind == Kind.F and stage == own[0]]
    if begin < 0 or len(starts) != short.microbatches:
        return None
    cuts = [starts[begin + number * period] for number in range(3)]
    repeated = row[cuts[0] : cuts[1]]
    if _later(repeated, period) != list(row[cuts[1] : cuts[2]]) or not _complete(own, repeated, period):
        return None
    longer = list(row[: cuts[0]])
    for later in range(0, more, period):
        longer += _later(repeated, later)
    return longer + _later(row[cuts[0] :], more)


def _later(actions: Sequence[Action], microbatches: int) -> list[Action]:
    return [new_action(Action, (kind, stage, i + microbatches)) for kind, stage, i in actions]


def _complete(stages: Sequence[int], repeated: Sequence[Action], period: int) -> bool:
    """Whether a round computes `period` forwards and backwards, whole or split, of each stage."""
    found = Counter((kind, stage) for kind, stage, _ in repeated)
    return all(
        found[Kind.F, stage] == found[Kind.B, stage] + found[Kind.I, stage] == period
        and found[Kind.W, stage] == found[Kind.I, stage]
        for stage in stages
    ) and all(kind in {Kind.F, Kind.B, Kind.I, Kind.W} for kind, _ in found)
