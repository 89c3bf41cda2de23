"""Prove a schedule right, or say where it is wrong.

Rules, each named in the refusal:

    placement       every rank holds the same number of stages, every stage lies on a rank that exists
    range           stage and microbatch of every cell exist; only computation is listed
    ownership       a cell stands on the rank that holds its stage
    count           each (stage, microbatch) has one F, and one B or one I and one W; by count, not by set
    order           on a rank: F before B or I, I before W, and a weight update after the gradients it uses
    versions        a microbatch uses weights that exist, and a rank keeps as many versions as it says
    deadlock        no ranks wait for each other in a circle, even with blocking sends and no buffers
    communication   every message once at both ends, and every two ranks list theirs in the same order
    times           given times overlap nowhere, and no cell starts before its data exists
"""

from __future__ import annotations

from collections import Counter

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.lower import lower
from planner.schedules.messages import check_lowered
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.text import ParsedSchedule
from planner.schedules.timeline import Timeline
from planner.schedules.versions import forward_versions, weight_versions

_TIMES_TOLERANCE = 1e-6  # of the makespan: files are rounded
_F, _B, _I, _W, _U = Kind.F, Kind.B, Kind.I, Kind.W, Kind.U


def check(schedule: Schedule) -> None:
    """Prove that `schedule` runs every microbatch exactly once through every stage and always finishes.

    Raises:
        ScheduleRefused: at the first broken rule, with rank, position and cell.
    """
    check_cells(schedule)
    check_versions(schedule)
    check_lowered(lower(schedule))


def check_parsed(parsed: ParsedSchedule) -> None:
    """Prove what a file holds: its schedule, and its own communication and times where it gives them.

    Raises:
        ScheduleRefused: at the first broken rule, with rank, position and cell.
    """
    check(parsed.schedule)
    if parsed.lowered is not None:
        check_lowered(parsed.lowered)
    if parsed.timeline is not None:
        check_times(parsed.timeline)


def check_cells(schedule: Schedule) -> None:
    """Prove the rules that concern single cells and the order within one rank.

    Raises:
        ScheduleRefused: at the first broken rule, with rank, position and cell.
    """
    _check_placement(schedule)
    # With fewer cells than forwards some F is missing, and what the file claims need not fit into memory.
    enough = schedule.stages * schedule.microbatches <= sum(map(len, schedule.actions))
    if enough and _cells_are_right(schedule):
        return
    # Cells on the wrong rank first: what they lack elsewhere only follows from that.
    for rank, actions in enumerate(schedule.actions):
        for position, action in enumerate(actions):
            _refuse(_broken_range(schedule, rank, action), action, rank, position)
    for rank, actions in enumerate(schedule.actions):
        seen: set[Action] = set()
        for position, action in enumerate(actions):
            _refuse(_broken_order(action, seen), action, rank, position)
            seen.add(action)
        _check_complete(schedule, rank, seen)


def _cells_are_right(schedule: Schedule) -> bool:
    """Whether no cell breaks a rule; the caller then finds the first that does, at ten times the cost."""
    stages, microbatches, placement, flush = (
        schedule.stages,
        schedule.microbatches,
        schedule.placement,
        schedule.flush,
    )
    forward, updated = bytearray(stages * microbatches), bytearray(stages * microbatches)
    backward = bytearray(stages * microbatches)  # 1 after I, 2 after W, 3 after B
    for rank, actions in enumerate(schedule.actions):
        for kind, stage, microbatch in actions:
            if not (0 <= stage < stages and 0 <= microbatch < microbatches and placement[stage] == rank):
                return False
            cell = stage * microbatches + microbatch
            if kind == _F:
                if forward[cell]:
                    return False
                forward[cell] = 1
            elif kind == _W:
                if backward[cell] != 1:
                    return False
                backward[cell] = 2
            elif kind in (_B, _I):
                if backward[cell] or not forward[cell]:
                    return False
                backward[cell] = 1 if kind == _I else 3
            elif kind == _U and not flush and backward[cell] > 1 and not updated[cell]:
                updated[cell] = 1
            else:
                return False
    return 0 not in forward and min(backward) > 1


def _refuse(broken: tuple[str, str] | None, action: Action, rank: int, position: int) -> None:
    if broken:
        rule, message = broken
        raise ScheduleRefused(rule, f"{action}: {message}", cell=action, rank=rank, position=position)


def _broken_range(schedule: Schedule, rank: int, action: Action) -> tuple[str, str] | None:
    """Return the rule that the cell alone breaks on this rank, and what to say."""
    kind, stage, microbatch = action
    if kind > _U:
        return "range", "communication is derived, not listed; leave it out"
    if kind == _U and schedule.flush:
        return "range", "a schedule with a flush updates its weights after the step; leave it out"
    if not 0 <= stage < schedule.stages:
        return "range", f"there is no stage {stage}, only 0 to {schedule.stages - 1}"
    if not 0 <= microbatch < schedule.microbatches:
        return "range", f"there is no microbatch {microbatch}, only 0 to {schedule.microbatches - 1}"
    if schedule.placement[stage] != rank:
        return "ownership", f"stage {stage} lies on rank {schedule.placement[stage]}"
    return None


def _broken_order(action: Action, seen: set[Action]) -> tuple[str, str] | None:
    """Return the rule that the cell breaks after the cells `seen` on its rank, and what to say."""
    kind, stage, microbatch = action
    if action in seen:
        return "count", "listed a second time"
    if kind == _F:
        return None
    if kind == _U:
        whole, weight = Action(_B, stage, microbatch), Action(_W, stage, microbatch)
        return None if whole in seen or weight in seen else ("order", f"comes before {whole}")
    needed = Action(_I if kind == _W else _F, stage, microbatch)
    if needed not in seen:
        return "order", f"comes before {needed}, or {needed} is missing"
    if kind == _W:
        return None
    other = Action(_I if kind == _B else _B, stage, microbatch)
    return ("count", f"a second backward after {other}") if other in seen else None


def _check_placement(schedule: Schedule) -> None:
    ranks, placement = schedule.ranks, schedule.placement
    if not ranks or not placement or schedule.microbatches < 1:
        raise ScheduleRefused("placement", f"{schedule.name} has no ranks, no stages or no microbatches")
    for stage, rank in enumerate(placement):
        if not 0 <= rank < ranks:
            raise ScheduleRefused("placement", f"stage {stage} lies on rank {rank}, of 0 to {ranks - 1}")
    counts = Counter(placement)
    for rank in range(ranks):
        if counts[rank] * ranks != len(placement):
            raise ScheduleRefused(
                "placement",
                f"holds {counts[rank]} of the {len(placement)} stages on {ranks} ranks; every rank must hold"
                " the same number",
                rank=rank,
            )


def _check_complete(schedule: Schedule, rank: int, seen: set[Action]) -> None:
    end = len(schedule.actions[rank])
    for stage in schedule.stages_of(rank):
        for microbatch in range(schedule.microbatches):
            if Action(_F, stage, microbatch) not in seen:
                missing = _F
            elif Action(_B, stage, microbatch) in seen or Action(_W, stage, microbatch) in seen:
                continue  # a W implies its I, by the order
            else:
                missing = _W if Action(_I, stage, microbatch) in seen else _B
            cell = Action(missing, stage, microbatch)
            raise ScheduleRefused("count", f"{cell} is missing", cell=cell, rank=rank, position=end)


def check_versions(schedule: Schedule) -> None:
    """Prove that the weight versions of an asynchronous schedule exist when they are used.

    Raises:
        ScheduleRefused: at the first version used before it is made, or the first rank that keeps too few.
    """
    if schedule.flush:
        return
    versions = forward_versions(schedule)
    for rank, actions in enumerate(schedule.actions):
        updates: Counter[int] = Counter()
        for position, action in enumerate(actions):
            kind, stage, microbatch = action
            updates[stage] += kind == _U
            if kind == _F and not 0 <= versions[stage][microbatch] <= updates[stage]:
                raise ScheduleRefused(
                    "versions",
                    f"{action} uses version {versions[stage][microbatch]}, after {updates[stage]} updates",
                    cell=action,
                    rank=rank,
                    position=position,
                )
    for rank, (kept, needed) in enumerate(
        zip(schedule.weight_versions, weight_versions(schedule), strict=False)
    ):
        if kept < needed:
            raise ScheduleRefused("versions", f"keeps {kept} weight versions, needs {needed}", rank=rank)


def check_times(timeline: Timeline) -> None:
    """Prove that the times of a file are possible: nothing overlaps, no cell starts before its data exists.

    Raises:
        ScheduleRefused: at the first cell that starts too early.
    """
    ends: dict[tuple[bool, int, int], float] = {}
    for actions, row in zip(timeline.schedule.actions, timeline.ends, strict=True):
        for (kind, stage, microbatch), end in zip(actions, row, strict=True):
            if kind in (_F, _B, _I):
                ends[kind == _F, stage, microbatch] = end
    slack = _TIMES_TOLERANCE * max(timeline.makespan, 0.0)
    for rank, actions in enumerate(timeline.schedule.actions):
        free = float("-inf")
        for position, action in enumerate(actions):
            kind, stage, microbatch = action
            start, end = timeline.starts[rank][position], timeline.ends[rank][position]
            source = stage - 1 if kind == _F else stage + 1
            ready = ends.get((kind == _F, source, microbatch), free) if kind in (_F, _B, _I) else free
            message = "" if end >= start else f"{action} ends at {end:.6g}, before it starts at {start:.6g}"
            for bound, what in ((free, "the cell before it ends"), (ready, f"stage {source} is done")):
                if not message and start < bound - slack:
                    message = f"{action} starts at {start:.6g}, before {what} at {bound:.6g}"
            if message:
                raise ScheduleRefused("times", message, cell=action, rank=rank, position=position)
            free = end
