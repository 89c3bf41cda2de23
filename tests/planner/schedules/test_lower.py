"""Lowering: every message at both ends, in one order, and reductions as early as they can be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from planner.schedules import (
    FAMILIES,
    Kind,
    LoweredSchedule,
    ScheduleError,
    ScheduleRefused,
    build,
    check_lowered,
    lower,
    prove_order,
)

SENDS = (Kind.SEND_F, Kind.SEND_B)
CASES = [(family.name, p, m) for family in FAMILIES for p in (1, 2, 3, 4) for m in (1, 4, 5)]


def lowered(name: str, p: int, m: int) -> LoweredSchedule:
    try:
        return lower(build(name, ranks=p, microbatches=m))
    except ScheduleError:
        pytest.skip("the family has no schedule for these numbers")


@pytest.mark.parametrize(("name", "p", "m"), CASES)
def test_messages_pair_up_in_one_order(name: str, p: int, m: int) -> None:
    result = lowered(name, p, m)
    check_lowered(result)
    for one in range(p):
        for two in range(p):
            ours = [a.tag for a in result.actions[one] if a.peer == two and a.kind in SENDS]
            theirs = [a.tag for a in result.actions[two] if a.peer == one and a.kind not in SENDS]
            assert ours == theirs, f"first in, first out from rank {one} to rank {two}"
            assert len(set(ours)) == len(ours)
    assert all(action.peer != rank for rank, row in enumerate(result.actions) for action in row)


@pytest.mark.parametrize(("name", "p", "m"), CASES)
def test_computation_is_left_as_it_was(name: str, p: int, m: int) -> None:
    result = lowered(name, p, m)
    for row, before in zip(result.actions, result.schedule.actions, strict=True):
        assert tuple(entry.action for entry in row if entry.kind.is_compute) == before


@pytest.mark.parametrize(("name", "p", "m"), CASES)
def test_a_stage_is_reduced_once_after_its_last_gradient(name: str, p: int, m: int) -> None:
    result = lowered(name, p, m)
    if not result.schedule.flush:
        pytest.skip("asynchronous: every update has its own reduction")
    for rank, row in enumerate(result.actions):
        reductions = {entry.stage: at for at, entry in enumerate(row) if entry.kind == Kind.REDUCE}
        counts = Counter(entry.stage for entry in row if entry.kind == Kind.REDUCE)
        assert counts == Counter(result.schedule.stages_of(rank))
        for stage, last in result.last_backward(rank).items():
            between = row[last + 1 : reductions[stage]]
            assert reductions[stage] > last
            assert all(entry.kind in (*SENDS, Kind.REDUCE) for entry in between)


def test_a_swapped_pair_of_messages_is_refused() -> None:
    right = lower(build("1f1b", ranks=2, microbatches=4))
    row = list(right.actions[1])
    receives = [at for at, entry in enumerate(row) if entry.kind == Kind.RECV_F][:2]
    row[receives[0]], row[receives[1]] = row[receives[1]], row[receives[0]]
    with pytest.raises(ScheduleRefused, match="message"):
        prove_order(replace(right, actions=(right.actions[0], tuple(row))))


@pytest.mark.parametrize("kind", [Kind.SEND_F, Kind.RECV_F, Kind.SEND_B, Kind.RECV_B])
def test_a_lost_message_is_refused(kind: Kind) -> None:
    right = lower(build("gpipe", ranks=3, microbatches=3))
    for rank, row in enumerate(right.actions):
        for at, entry in enumerate(row):
            if entry.kind == kind:
                rows = list(right.actions)
                rows[rank] = (*row[:at], *row[at + 1 :])
                with pytest.raises(ScheduleRefused):
                    check_lowered(replace(right, actions=tuple(rows)))
