"""Which version of its weights each microbatch uses in an asynchronous schedule, and how many a rank keeps.

Version n of a stage's weights has seen n updates (U). A microbatch uses one version for its forward and its
backward (weight stashing), so a version lives from when it is made, or first used, until the last backward
that uses it.
"""

from __future__ import annotations

from collections import Counter

from planner.schedules.action import Kind, Schedule


def forward_versions(schedule: Schedule) -> tuple[tuple[int, ...], ...]:
    """Return [stage][microbatch] → version; empty for a schedule with a flush, where all use the same.

    A schedule that does not say uses the newest weights that the stage has when the forward starts.
    """
    if schedule.flush or schedule.forward_versions:
        return schedule.forward_versions
    versions = [[0] * schedule.microbatches for _ in range(schedule.stages)]
    for actions in schedule.actions:
        updates: dict[int, int] = {}
        for kind, stage, microbatch in actions:
            if kind == Kind.U:
                updates[stage] = updates.get(stage, 0) + 1
            elif kind == Kind.F:
                versions[stage][microbatch] = updates.get(stage, 0)
    return tuple(map(tuple, versions))


def weight_versions(schedule: Schedule) -> tuple[int, ...]:
    """Return, per rank, the most versions of one stage's weights alive at once (1 with a flush)."""
    if schedule.flush:
        return (1,) * schedule.ranks
    versions = forward_versions(schedule)
    return tuple(
        max(_alive(schedule, rank, stage, versions[stage]) for stage in schedule.stages_of(rank))
        for rank in range(schedule.ranks)
    )


def updates_of(schedule: Schedule) -> int:
    """Return how often a schedule updates each stage: its optimizer steps (U) of stage 0."""
    return sum(action.kind == Kind.U and action.stage == 0 for row in schedule.actions for action in row)


def _alive(schedule: Schedule, rank: int, stage: int, versions: tuple[int, ...]) -> int:
    """Most versions of `stage` kept at once: the newest, and older ones that a microbatch will still use."""
    left = Counter(versions)  # version → microbatches whose backward is still to come
    newest, alive, most = 0, {0}, 1
    for kind, at, microbatch in schedule.actions[rank]:
        if at != stage:
            continue
        if kind == Kind.U:
            if not left[newest]:
                alive.discard(newest)
            newest += 1
            alive.add(newest)
        elif kind in (Kind.B, Kind.W):
            version = versions[microbatch]
            left[version] -= 1
            if not left[version] and version != newest:
                alive.discard(version)
        most = max(most, len(alive))
    return most
