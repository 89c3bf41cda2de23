"""Run a lowered schedule with zero buffering: a message moves only while both its ends are in it.

This is how unbuffered blocking sends and receives behave, and the hardest condition that a transport can set:
what finishes here finishes on every transport that keeps the listed order.
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.schedules.action import Kind, Schedule
from planner.schedules.lower import LoweredAction, LoweredSchedule, lower
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.simulate import require_stages
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes

_SENDS = (Kind.SEND_F, Kind.SEND_B)
_UPWARD = (Kind.SEND_F, Kind.RECV_B)  # crosses the boundary above its own stage
_LAST_COMPUTE = Kind.U


def simulate_blocking(schedule: Schedule, times: StageTimes) -> Timeline:
    """Return the timeline of `schedule` when a send holds its rank until the receiver has the data."""
    require_stages(schedule, times)
    return simulate_lowered(lower(schedule, times), times)


def simulate_lowered(lowered: LoweredSchedule, times: StageTimes) -> Timeline:
    """Run the given lists with blocking sends and receives and return when their computation happens.

    Raises:
        ScheduleRefused: when no rank can go on, naming what each end waits for.
    """
    ranks = len(lowered.actions)
    starts: tuple[list[float], ...] = tuple([] for _ in range(ranks))
    ends: tuple[list[float], ...] = tuple([] for _ in range(ranks))
    clock, places = [0.0] * ranks, [0] * ranks
    travel = [times.latency + wire for wire in times.wire]
    table = times.table
    runnable = list(range(ranks))
    while runnable:
        rank = runnable.pop()
        actions, place = lowered.actions[rank], places[rank]
        while place < len(actions):
            kind, stage, _, peer, tag = actions[place]
            if peer >= 0:
                if not _meets(lowered.actions[peer], places[peer], rank, tag, sends=kind in _SENDS):
                    break  # the peer will wake this rank when it arrives at the other end
                seconds = travel[stage if kind in _UPWARD else stage - 1]
                clock[rank] = clock[peer] = max(clock[rank], clock[peer]) + seconds
                places[peer] += 1
                runnable.append(peer)
            elif kind <= _LAST_COMPUTE:
                starts[rank].append(clock[rank])
                clock[rank] += table[kind][stage]
                ends[rank].append(clock[rank])
            place += 1
        places[rank] = place
    for rank, actions in enumerate(lowered.actions):
        if places[rank] < len(actions):
            raise _refusal(lowered, places, rank)
    return Timeline(schedule=lowered.schedule, starts=starts, ends=ends)


def _meets(theirs: Sequence[LoweredAction], place: int, rank: int, tag: int, *, sends: bool) -> bool:
    """Whether the peer, at `place` of its list, stands at the other end of the same message."""
    if place >= len(theirs):
        return False
    kind, _, _, peer, other = theirs[place]
    return peer == rank and other == tag and (kind in _SENDS) != sends


def _refusal(lowered: LoweredSchedule, places: list[int], rank: int) -> ScheduleRefused:
    action = lowered.actions[rank][places[rank]]
    theirs = lowered.actions[action.peer]
    place = places[action.peer]
    doing = f"is at {theirs[place]}, position {place}" if place < len(theirs) else "has finished"
    return ScheduleRefused(
        "deadlock",
        f"{action} waits for ever for rank {action.peer}, which {doing}",
        cell=action.action,
        rank=rank,
        position=places[rank],
    )
