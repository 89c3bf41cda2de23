"""Improve a schedule by small changes to the order of its ranks.

A step moves one action a little earlier or later on its rank, most often on a rank whose span is the longest.
The change is kept unless the schedule gets longer (a little is allowed at first), does not fit, or deadlocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.automatic.score import score_of
from planner.schedules.memory import peak_of
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.simulate import simulate
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes

_F, _W = Kind.F, Kind.W
_FAR = 6  # how far one step may move an action
_SLACK = 0.15  # how much longer than the best a schedule on the way may be


def improve(
    schedule: Schedule,
    times: StageTimes,
    *,
    limits: Sequence[int],
    tries: int,
    bound: float,
    seed: int = 0,
) -> Schedule:
    """Return a schedule at least as good as `schedule` after `tries` attempted steps.

    No rank holds more than `limits[rank]` stage activations. Stops early when the cycle reaches `bound`.
    """
    chance = random.Random(seed)  # noqa: S311 (a search, not a secret)
    best = schedule
    timeline = simulate(schedule, times)
    score = best_score = score_of(timeline)
    for step in range(tries):
        if best_score[0] <= bound:
            break
        rank = _pick_rank(timeline, chance)
        row = _moved(schedule.actions[rank], chance)
        if row is None or peak_of(row) > limits[rank]:
            continue
        actions = (*schedule.actions[:rank], row, *schedule.actions[rank + 1 :])
        changed = replace(schedule, actions=actions)
        try:
            timeline_changed = simulate(changed, times)
        except ScheduleRefused:
            continue
        score_changed = score_of(timeline_changed)
        # A little worse is taken at times, ever more seldom, to get out of dead ends.
        slack = best_score[0] * _SLACK * (1 - step / tries) * chance.random() ** 3
        if score_changed <= score or score_changed[0] <= best_score[0] + slack:
            schedule, timeline, score = changed, timeline_changed, score_changed
            if score < best_score:
                best, best_score = schedule, score
    return best


def _pick_rank(timeline: Timeline, chance: random.Random) -> int:
    """Pick a rank, half of the time one with the longest span."""
    ranks = range(len(timeline.spans))
    if chance.random() < 0.5:
        longest = timeline.cycle * (1 - 1e-9)
        ranks_longest = [rank for rank in ranks if timeline.spans[rank] >= longest]
        return chance.choice(ranks_longest)
    return chance.choice(ranks)


def _moved(row: tuple[Action, ...], chance: random.Random) -> tuple[Action, ...] | None:
    """Return the row with one action moved, or None where the move would break the rank's own order."""
    start = chance.randrange(len(row))
    shift = chance.randint(1, _FAR) * chance.choice((-1, 1))
    end = min(max(start + shift, 0), len(row) - 1)
    if start == end:
        return None
    action = row[start]
    passed = row[end:start] if end < start else row[start + 1 : end + 1]
    if any(other[1:] == action[1:] for other in passed):
        return None  # cells of one stage and microbatch keep their order
    if any(other.kind == action.kind and other.stage == action.stage for other in passed):
        return None  # microbatches of one stage stay in order, which costs nothing and saves half the search
    rest = row[:start] + row[start + 1 :]
    return (*rest[:end], action, *rest[end:])
