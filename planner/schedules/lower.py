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
    last = schedule.stages - 1
    for _, computes, rank, position in _common_order(schedule, times):
        kind, stage, microbatch = action = schedule.actions[rank][position]
        if computes:
            if kind == _U:
                lists[rank].append(LoweredAction(_REDUCE, stage, microbatch))
            lists[rank].append(LoweredAction(*action))
        elif kind == _F and stage < last:
            _message(schedule, lists, (_SEND_F, _RECV_F), (stage, stage + 1), microbatch)
        elif kind in (_B, _I) and stage > 0:
            _message(schedule, lists, (_SEND_B, _RECV_B), (stage, stage - 1), microbatch)
    if schedule.flush:
        lists = tuple(_with_reductions(actions) for actions in lists)
    return LoweredSchedule(schedule=schedule, actions=tuple(map(tuple, lists)))


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


def _common_order(schedule: Schedule, times: StageTimes) -> list[tuple[float, bool, int, int]]:
    """Return (time, whether computation, rank, position) of all events, sorted.

    An action computes from its start; its message, if it has one, leaves at its end. At equal times messages
    come first, since the action that starts then may need one.
    """
    timeline = simulate(schedule, times)
    order = []
    for rank, (starts, ends) in enumerate(zip(timeline.starts, timeline.ends, strict=True)):
        order += [(time, True, rank, position) for position, time in enumerate(starts)]
        order += [(time, False, rank, position) for position, time in enumerate(ends)]
    order.sort()
    return order


def _message(
    schedule: Schedule,
    lists: tuple[list[LoweredAction], ...],
    kinds: tuple[Kind, Kind],
    stages: tuple[int, int],
    microbatch: int,
) -> None:
    """List the message of `microbatch` from stages[0] to stages[1] at both ends."""
    source, target = schedule.placement[stages[0]], schedule.placement[stages[1]]
    if source == target:
        return  # the turn of a V: the data stays where it is
    tag = _tag(schedule, stages[1], microbatch, gradient=stages[1] < stages[0])
    lists[source].append(LoweredAction(kinds[0], stages[0], microbatch, target, tag))
    lists[target].append(LoweredAction(kinds[1], stages[1], microbatch, source, tag))


def _tag(schedule: Schedule, receiver: int, microbatch: int, *, gradient: bool) -> int:
    """Return a tag that only this message of a step has: by receiving stage, direction and microbatch."""
    return (microbatch * len(schedule.placement) + receiver) * 2 + gradient


def message_of(schedule: Schedule, action: LoweredAction) -> LoweredAction:
    """Return a SEND or RECV with its peer and tag; other actions as they are.

    Raises:
        ScheduleRefused: when there is no stage at the other end, or it lies on the same rank.
    """
    kind, stage, microbatch = action.action
    if kind not in (_SEND_F, _RECV_F, _SEND_B, _RECV_B):
        return action
    other = stage + 1 if kind in (_SEND_F, _RECV_B) else stage - 1
    receiver = other if kind in (_SEND_F, _SEND_B) else stage
    if not (0 <= stage < schedule.stages and 0 <= other < schedule.stages):
        raise ScheduleRefused(
            "communication", f"{action}: there is no stage {other} at the other end", cell=action.action
        )
    peer = schedule.placement[other]
    if peer == schedule.placement[stage]:
        raise ScheduleRefused(
            "communication",
            f"{action}: stages {stage} and {other} lie on the same rank",
            cell=action.action,
        )
    tag = _tag(schedule, receiver, microbatch, gradient=kind in (_SEND_B, _RECV_B))
    return LoweredAction(kind, stage, microbatch, peer, tag)


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
    sides: dict[tuple[int, int], list[tuple[int, bool, int, LoweredAction]]] = {}
    for rank, actions in enumerate(lowered.actions):
        for position, action in enumerate(actions):
            if action.peer >= 0:
                sends = action.kind in (_SEND_F, _SEND_B)
                sides.setdefault((rank, action.peer), []).append((action.tag, sends, position, action))
    for (rank, peer), ours in sides.items():
        theirs = sides.get((peer, rank), [])
        for i, (tag, sends, position, action) in enumerate(ours):
            if i >= len(theirs) or theirs[i][0] != tag or theirs[i][1] == sends:
                other = f"lists {theirs[i][3]}" if i < len(theirs) else "lists nothing more"
                raise ScheduleRefused(
                    "communication",
                    f"{action} is message {i} with rank {peer}, which {other} there",
                    cell=action.action,
                    rank=rank,
                    position=position,
                )
