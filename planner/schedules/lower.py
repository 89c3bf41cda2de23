"""Lowering: put the communication into a schedule.

Every message becomes one event at its place in one order of everything that happens on all ranks, and both
ends list their events in that order:

    rank 0   F0 SEND_F0 F1 SEND_F1 …        the receiver lists RECV_F0 where the message falls in the
    rank 1      RECV_F0 F0 RECV_F1 …        common order, before the action that needs it

So, for any schedule without a circle,
- ranks that block in every send and receive (zero buffering) never deadlock: the first event of the common
  order that has not happened is the next one in the list of each rank that takes part in it;
- both directions between two ranks are listed in the same order on both sides. NCCL, which ignores tags and
  pairs operations as they are posted, therefore pairs them correctly; gloo's tags only confirm it.

An executor may post receives earlier than listed, in the listed order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.simulate import simulate
from planner.schedules.times import StageTimes

# Reading a member of an enumeration costs as much as the rest of a loop.
_F, _B, _I, _W, _U = Kind.F, Kind.B, Kind.I, Kind.W, Kind.U
_SEND_F, _RECV_F, _SEND_B, _RECV_B = Kind.SEND_F, Kind.RECV_F, Kind.SEND_B, Kind.RECV_B
_REDUCE = Kind.REDUCE
_new = tuple.__new__  # a NamedTuple's own constructor takes three times as long


class LoweredAction(NamedTuple):
    """One entry of a rank's list.

    `stage` is this rank's own stage: SEND_F sends its output, RECV_F receives its input, SEND_B sends the
    gradient of its input, RECV_B receives the gradient of its output. `peer` is the rank at the other end,
    `tag` the same at both ends and different for every message of a step; both −1 for computation and REDUCE.
    """

    kind: Kind
    stage: int
    microbatch: int
    peer: int = -1
    tag: int = -1

    @property
    def action(self) -> Action:
        """The entry without its peer."""
        return Action(self.kind, self.stage, self.microbatch)

    def __str__(self) -> str:
        return str(self.action)


@dataclass(frozen=True, kw_only=True)
class LoweredSchedule:
    """The action lists with communication. `actions[rank]` is what `rank` does, in order."""

    schedule: Schedule
    actions: tuple[tuple[LoweredAction, ...], ...]

    def last_backward(self, rank: int) -> dict[int, int]:
        """Return, for each stage of `rank`, the position of the last action that adds to its gradients.

        From there on the stage's gradients can be reduced over dp while later actions compute.
        """
        return {
            action.stage: position
            for position, action in enumerate(self.actions[rank])
            if action.kind in (_B, _W)
        }


def lower(schedule: Schedule, times: StageTimes | None = None) -> LoweredSchedule:
    """Return `schedule` with SEND, RECV and REDUCE actions.

    `times` say where messages fall in the common order; equal times for all stages where left out.

    Raises:
        ScheduleRefused: when ranks wait for each other in a circle.
    """
    times = _positive(times) if times else StageTimes.uniform(stages=schedule.stages)
    lists: tuple[list[LoweredAction], ...] = tuple([] for _ in schedule.actions)
    messages = _messages(schedule)
    stages = schedule.stages
    for _, computes, rank, position in _common_order(schedule, times, messages):
        kind, stage, microbatch = action = schedule.actions[rank][position]
        if computes:
            if kind == _U:
                lists[rank].append(LoweredAction(_REDUCE, stage, microbatch))
            lists[rank].append(_new(LoweredAction, (*action, -1, -1)))
            continue
        message = messages[kind][stage]
        assert message is not None
        sends, receives, other, target, gradient = message
        tag = (microbatch * stages + other) * 2 + gradient
        lists[rank].append(_new(LoweredAction, (sends, stage, microbatch, target, tag)))
        lists[target].append(_new(LoweredAction, (receives, other, microbatch, rank, tag)))
    if schedule.flush:
        lists = tuple(_with_reductions(actions) for actions in lists)
    return LoweredSchedule(schedule=schedule, actions=tuple(map(tuple, lists)))


class _Message(NamedTuple):
    """What the result of an action travels in: to stage `other` on rank `target`."""

    sends: Kind
    receives: Kind
    other: int
    target: int
    gradient: bool


def _messages(schedule: Schedule) -> list[list[_Message | None]]:
    """Return the messages by kind and stage; None where the result stays on its rank or goes nowhere."""
    table: list[list[_Message | None]] = [[None] * schedule.stages for _ in range(_U + 1)]
    for stage, rank in enumerate(schedule.placement):
        for kinds, sends, receives, other in (
            ((_F,), _SEND_F, _RECV_F, stage + 1),
            ((_B, _I), _SEND_B, _RECV_B, stage - 1),
        ):
            # On one rank, at the turn of a V, the data stays where it is.
            if 0 <= other < schedule.stages and schedule.placement[other] != rank:
                target = schedule.placement[other]
                for kind in kinds:
                    table[kind][stage] = _Message(sends, receives, other, target, other < stage)
    return table


def _positive(times: StageTimes) -> StageTimes:
    """Return `times` without durations of zero, so that time alone orders what depends on each other."""
    rows = times.table
    least = max(map(max, rows)) * 1e-6 or 1.0
    forward, backward, input_gradient, weight_gradient, update = (
        tuple(max(value, least) for value in row) for row in rows
    )
    return replace(
        times,
        forward=forward,
        backward=backward,
        input_gradient=input_gradient,
        weight_gradient=weight_gradient,
        update=update,
    )


def _common_order(
    schedule: Schedule, times: StageTimes, messages: list[list[_Message | None]]
) -> list[tuple[float, bool, int, int]]:
    """Return (time, whether computation, rank, position) of all actions and messages, sorted.

    An action computes from its start; its message, if it has one, leaves at its end. At equal times messages
    come first, since the action that starts then may need one.
    """
    timeline = simulate(schedule, times)
    order = []
    for rank, (actions, starts, ends) in enumerate(
        zip(schedule.actions, timeline.starts, timeline.ends, strict=True)
    ):
        order += [(time, True, rank, position) for position, time in enumerate(starts)]
        order += [
            (ends[position], False, rank, position)
            for position, (kind, stage, _) in enumerate(actions)
            if messages[kind][stage] is not None
        ]
    order.sort()
    return order


def _tag(schedule: Schedule, receiver: int, microbatch: int, *, gradient: bool) -> int:
    """Return a tag that only this message of a step has: by receiving stage, direction and microbatch."""
    return (microbatch * len(schedule.placement) + receiver) * 2 + gradient


def message_of(schedule: Schedule, action: LoweredAction, *, rank: int, position: int) -> LoweredAction:
    """Return a SEND or RECV with its peer and tag; other actions as they are.

    `rank` and `position` say where it is listed.

    Raises:
        ScheduleRefused: when there is no stage at the other end, or it lies on the same rank.
    """
    kind, stage, microbatch = action.action
    if kind not in (_SEND_F, _RECV_F, _SEND_B, _RECV_B):
        return action
    other = stage + 1 if kind in (_SEND_F, _RECV_B) else stage - 1
    receiver = other if kind in (_SEND_F, _SEND_B) else stage
    if not (0 <= stage < schedule.stages and 0 <= other < schedule.stages):
        wrong = f"there is no stage {other} at the other end"
    elif schedule.placement[other] == schedule.placement[stage]:
        wrong = f"stages {stage} and {other} lie on the same rank"
    else:
        wrong = ""
    if wrong:
        raise ScheduleRefused(
            "communication", f"{action}: {wrong}", cell=action.action, rank=rank, position=position
        )
    tag = _tag(schedule, receiver, microbatch, gradient=kind in (_SEND_B, _RECV_B))
    return LoweredAction(kind, stage, microbatch, schedule.placement[other], tag)


def _with_reductions(actions: list[LoweredAction]) -> list[LoweredAction]:
    """Put REDUCE after the last backward of each stage, behind the sends that others wait for."""
    last = {action.stage: i for i, action in enumerate(actions) if action.kind in (_B, _W)}
    places: dict[int, list[int]] = {}
    for stage, place in last.items():
        following = place + 1
        while following < len(actions) and actions[following].kind in (_SEND_F, _SEND_B):
            following += 1
        places.setdefault(following, []).append(stage)
    result = []
    for i, action in enumerate([*actions, None]):
        result += [LoweredAction(_REDUCE, stage, -1) for stage in places.get(i, ())]
        if action is not None:
            result.append(action)
    return result


def prove_order(lowered: LoweredSchedule) -> None:
    """Prove that every two ranks list their messages, both directions together, in the same order.

    Raises:
        ScheduleRefused: at the first message that the other end lists differently or not at all.
    """
    sides: dict[tuple[int, int], list[int]] = {}  # (rank, peer) → 2 · tag + whether it is sent
    for rank, actions in enumerate(lowered.actions):
        own: dict[int, list[int]] = {}
        for kind, _, _, peer, tag in actions:
            if peer >= 0:
                own.setdefault(peer, []).append(2 * tag + (kind in (_SEND_F, _SEND_B)))
        sides |= {(rank, peer): codes for peer, codes in own.items()}
    for (rank, peer), ours in sides.items():
        theirs = [code ^ 1 for code in sides.get((peer, rank), [])]
        if ours != theirs[: len(ours)]:
            alike = zip(ours, theirs, strict=False)
            number = next((i for i, (a, b) in enumerate(alike) if a != b), len(theirs))
            raise _disagreement(lowered, rank, peer, number)


def _disagreement(lowered: LoweredSchedule, rank: int, peer: int, number: int) -> ScheduleRefused:
    """Return the refusal for message `number` between two ranks, which the peer lists differently."""
    ours = [(at, a) for at, a in enumerate(lowered.actions[rank]) if a.peer == peer]
    theirs = [a for a in lowered.actions[peer] if a.peer == rank]
    position, action = ours[number]
    other = f"lists {theirs[number]}" if number < len(theirs) else "lists nothing more"
    return ScheduleRefused(
        "communication",
        f"{action} is message {number} with rank {peer}, which {other} there",
        cell=action.action,
        rank=rank,
        position=position,
    )
