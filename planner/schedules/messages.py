"""Prove the communication of a lowered schedule, ours or read from a file."""

from __future__ import annotations

from planner.schedules.action import Action, Kind
from planner.schedules.blocking import simulate_lowered
from planner.schedules.lower import LoweredAction, LoweredSchedule, prove_order
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.times import StageTimes

_REDUCE, _UPWARD = Kind.REDUCE, (Kind.SEND_F, Kind.RECV_B)
_AFTER = {Kind.SEND_F: (Kind.F,), Kind.SEND_B: (Kind.B, Kind.I)}  # what makes the data
_BEFORE = {Kind.F: Kind.RECV_F, Kind.B: Kind.RECV_B, Kind.I: Kind.RECV_B}  # what brings it


def check_lowered(lowered: LoweredSchedule) -> None:
    """Prove that messages are complete, in the same order at both ends, and free of deadlock.

    Every message must be sent once after its data is made, and received once before it is used; every two
    ranks must list theirs in the same order; blocking sends without buffers must not deadlock.

    Raises:
        ScheduleRefused: at the first message that is not so, with rank, position and cell.
    """
    if not _messages_are_right(lowered):
        for rank in range(len(lowered.actions)):
            _check_rank(lowered, rank)
    prove_order(lowered)
    simulate_lowered(lowered, StageTimes.uniform(stages=lowered.schedule.stages))


def _messages_are_right(lowered: LoweredSchedule) -> bool:
    """Whether every entry follows what it needs and no message is missing; what is, costs ten times more.

    `done[cell]` has a bit for every kind that was listed; a kind needs one of some bits before it.
    """
    schedule = lowered.schedule
    stages, microbatches, placement = schedule.stages, schedule.microbatches, schedule.placement
    done = [0] * (stages * microbatches)
    needs, gives = _needs(lowered), _gives(lowered)
    for rank, entries in enumerate(lowered.actions):
        for kind, stage, microbatch, _, _ in entries:
            if kind == _REDUCE:
                continue
            if not (0 <= stage < stages and 0 <= microbatch < microbatches and placement[stage] == rank):
                return False
            cell, needed, bit = stage * microbatches + microbatch, needs[kind][stage], 1 << kind
            before = done[cell]
            if before & bit or (needed and not before & needed):
                return False
            done[cell] = before | bit
    for actions in schedule.actions:
        for kind, stage, microbatch in actions:
            if gives[kind][stage] & ~done[stage * microbatches + microbatch]:
                return False
    return True


def _needs(lowered: LoweredSchedule) -> list[list[int]]:
    """Return, by kind and stage, the bits of the kinds of which one must come before."""
    table = [[0] * lowered.schedule.stages for _ in Kind]
    for kind, makers in _AFTER.items():
        table[kind] = [sum(1 << maker for maker in makers)] * lowered.schedule.stages
    for kind, receive in _BEFORE.items():
        for stage in range(lowered.schedule.stages):
            table[kind][stage] = _crosses(lowered, Action(receive, stage, 0)) << receive
    return table


def _gives(lowered: LoweredSchedule) -> list[list[int]]:
    """Return, by kind and stage, the bit of the message that must be sent of the result."""
    table = [[0] * lowered.schedule.stages for _ in Kind]
    for kind in _BEFORE:
        for stage in range(lowered.schedule.stages):
            send = _send_of(lowered, Action(kind, stage, 0))
            table[kind][stage] = 0 if send is None else 1 << send.kind
    return table


def _check_rank(lowered: LoweredSchedule, rank: int) -> None:
    seen: set[Action] = set()
    for position, entry in enumerate(lowered.actions[rank]):
        action = entry.action
        broken = _broken(lowered, rank, entry, seen)
        if broken:
            raise ScheduleRefused(
                "communication", f"{action}: {broken}", cell=action, rank=rank, position=position
            )
        seen.add(action)
    for action in lowered.schedule.actions[rank]:
        send = _send_of(lowered, action)
        if send is not None and send not in seen:
            end = len(lowered.actions[rank])
            raise ScheduleRefused("communication", f"{send} is missing", cell=send, rank=rank, position=end)


def _broken(lowered: LoweredSchedule, rank: int, entry: LoweredAction, seen: set[Action]) -> str:
    """Say what is wrong with an entry that follows those `seen` on its rank; empty if nothing is."""
    action = entry.action
    kind, stage, microbatch = action
    if kind != _REDUCE and action in seen:
        return "listed a second time"
    if entry.peer >= 0 and lowered.schedule.placement[stage] != rank:
        return f"stage {stage} lies on rank {lowered.schedule.placement[stage]}"
    if kind in _AFTER and not any(Action(made, stage, microbatch) in seen for made in _AFTER[kind]):
        return "sent before its data is made"
    if kind in _BEFORE:
        receive = Action(_BEFORE[kind], stage, microbatch)
        if _crosses(lowered, receive) and receive not in seen:
            return f"comes before {receive}, or {receive} is missing"
    return ""


def _send_of(lowered: LoweredSchedule, action: Action) -> Action | None:
    """Return the message that `action` must be followed by, if any."""
    kind, stage, microbatch = action
    if kind not in _BEFORE:
        return None
    send = Action(Kind.SEND_F if kind == Kind.F else Kind.SEND_B, stage, microbatch)
    return send if _crosses(lowered, send) else None


def _crosses(lowered: LoweredSchedule, message: Action) -> bool:
    """Whether the message's other end exists and lies on another rank."""
    schedule = lowered.schedule
    other = message.stage + (1 if message.kind in _UPWARD else -1)
    return 0 <= other < schedule.stages and schedule.placement[other] != schedule.placement[message.stage]
