"""Run a lowered schedule with zero buffering: a message moves only while both its ends are in it.

This is how unbuffered blocking sends and receives behave, and the hardest condition that a transport can set:
what finishes here finishes on every transport that keeps the listed order.
"""

from __future__ import annotations

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
    clock = [0.0] * ranks
    places = [0] * ranks
    runnable = list(range(ranks))
    while runnable:
        rank = runnable.pop()
        actions = lowered.actions[rank]
        while places[rank] < len(actions):
            action = actions[places[rank]]
            if action.peer >= 0:
                if not _meets(lowered, places, rank, action):
                    break  # the peer will wake this rank when it arrives at the other end
                seconds = times.latency + times.wire[_boundary(action)]
                clock[rank] = clock[action.peer] = max(clock[rank], clock[action.peer]) + seconds
                places[action.peer] += 1
                runnable.append(action.peer)
            elif action.kind <= _LAST_COMPUTE:
                starts[rank].append(clock[rank])
                clock[rank] += times.of(action.kind, action.stage)
                ends[rank].append(clock[rank])
            places[rank] += 1
    for rank, actions in enumerate(lowered.actions):
        if places[rank] < len(actions):
            raise _refusal(lowered, places, rank)
    return Timeline(schedule=lowered.schedule, starts=starts, ends=ends)


def _meets(lowered: LoweredSchedule, places: list[int], rank: int, action: LoweredAction) -> bool:
    """Whether the peer stands at the other end of the same message."""
    theirs = lowered.actions[action.peer]
    if places[action.peer] >= len(theirs):
        return False
    other = theirs[places[action.peer]]
    return (
        other.peer == rank and other.tag == action.tag and (other.kind in _SENDS) != (action.kind in _SENDS)
    )


def _boundary(action: LoweredAction) -> int:
    return action.stage if action.kind in _UPWARD else action.stage - 1


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
