"""The quick look at a schedule and the one that says what is wrong give the same verdict."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from planner.schedules import (
    LoweredSchedule,
    Schedule,
    ScheduleRefused,
    build,
    check_cells,
    check_lowered,
    lower,
)
from planner.schedules import check as check_schedule
from planner.schedules import messages as messages_module

CASES = [("1f1b", 3, 4, 1), ("zb-v", 2, 3, 2), ("interleaved-1f1b", 3, 3, 2), ("pipedream-2bw", 3, 4, 1)]


def verdict(task, subject) -> str:
    try:
        task(subject)
    except ScheduleRefused as refused:
        return str(refused)
    return "proved"


def broken(rows, random_, limits):
    """`rows` with one entry deleted, doubled, moved, swapped with another, or one of its numbers changed."""
    rows = [list(row) for row in rows]
    row = random_.choice(rows)
    place = random_.randrange(len(row))
    change = random_.choice(["delete", "double", "move", "swap", "stage", "microbatch", "kind"])
    entry = row[place]
    if change == "delete":
        del row[place]
    elif change == "double":
        row.insert(random_.randrange(len(row)), entry)
    elif change == "move":
        del row[place]
        other = random_.choice(rows)
        other.insert(random_.randrange(len(other) + 1), entry)
    elif change == "swap":
        other = random_.randrange(len(row))
        row[place], row[other] = row[other], entry
    elif change == "kind":
        row[place] = entry._replace(kind=random_.choice([e.kind for e in row]))
    else:
        row[place] = entry._replace(**{change: random_.randrange(-1, limits[change] + 2)})
    return tuple(map(tuple, rows))


@pytest.mark.parametrize(("name", "ranks", "microbatches", "chunks"), CASES)
def test_a_quick_look_overlooks_nothing(
    name: str, ranks: int, microbatches: int, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = build(name, ranks=ranks, microbatches=microbatches, chunks=chunks)
    limits = {"stage": right.stages, "microbatch": right.microbatches}
    chance = random.Random(f"{name} {ranks}")
    lowered = lower(right)
    cells: list[Schedule] = [
        replace(right, actions=broken(right.actions, chance, limits)) for _ in range(300)
    ]
    lists: list[LoweredSchedule] = [
        LoweredSchedule(schedule=right, actions=broken(lowered.actions, chance, limits)) for _ in range(300)
    ]
    # A stage or kind that does not exist has no place in a lowered list: it could not be made or read.
    lists = [one for one in lists if all(0 <= e.stage < right.stages for row in one.actions for e in row)]
    quick = [verdict(check_cells, one) for one in cells], [verdict(check_lowered, one) for one in lists]
    monkeypatch.setattr(check_schedule_module(), "_cells_are_right", lambda _: False)
    monkeypatch.setattr(messages_module, "_messages_are_right", lambda _: False)
    long = [verdict(check_cells, one) for one in cells], [verdict(check_lowered, one) for one in lists]
    assert quick == long
    assert verdict(check_cells, right) == verdict(check_lowered, lowered) == "proved"
    for verdicts in long:
        assert 0 < verdicts.count("proved") < len(verdicts) / 2


def check_schedule_module():
    """The module, whose name the package gives to its function."""
    import sys

    return sys.modules[check_schedule.__module__]
