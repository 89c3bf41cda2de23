"""PipeDream and PipeDream-2BW: 1F1B without a flush, weights updated while microbatches are in flight.

    rank 0  F0 F1 .  B0 U0 F2 B1 U1 F3 …        PipeDream, p = 2: an update after every backward
    rank 1  .  F0 B0 U0 F1 B1 U1 F2 …

A microbatch uses one version of a stage's weights forward and backward (weight stashing):
- PipeDream: the newest the stage has at the forward, so up to p − r versions are alive on rank r;
- 2BW: all microbatches of step k use version k − 1, made one step before, so two versions are enough.
  Gradients add up over the step's microbatches, and the update is W(k + 1) = W(k) − ν ∇f(W(k − 1)).

One list holds several steps, since they overlap.
"""

from __future__ import annotations

from dataclasses import replace

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.family import Family, ScheduleError
from planner.schedules.one_f_one_b import one_f_one_b
from planner.schedules.versions import weight_versions


def pipedream(ranks: int, microbatches: int, chunks: int = 1, steps: int = 1) -> Schedule:
    """Return PipeDream's schedule of `steps` · `microbatches` microbatches, each one update."""
    return _asynchronous("pipedream", ranks, microbatches * steps, every=1)


def pipedream_2bw(ranks: int, microbatches: int, chunks: int = 1, steps: int = 1) -> Schedule:
    """Return the 2BW schedule of `steps` updates, each of `microbatches` microbatches.

    Raises:
        ScheduleError: with fewer than p − 1 microbatches, when two versions would not be enough.
    """
    if microbatches < ranks - 1:
        raise ScheduleError(
            f"pipedream-2bw on {ranks} ranks keeps two weight versions only with at least {ranks - 1}"
            f" microbatches per update, not {microbatches}; use microbatches ≥ {ranks - 1}, or pipedream"
        )
    schedule = _asynchronous("pipedream-2bw", ranks, microbatches * steps, every=microbatches)
    versions = tuple(max(i // microbatches - 1, 0) for i in range(schedule.microbatches))
    schedule = replace(schedule, forward_versions=(versions,) * ranks)
    return replace(schedule, weight_versions=weight_versions(schedule))


def _asynchronous(name: str, ranks: int, microbatches: int, *, every: int) -> Schedule:
    """Return 1F1B's order with an update after every `every` backwards."""
    schedule = one_f_one_b(ranks, microbatches)
    rows = []
    for row in schedule.actions:
        actions = []
        for action in row:
            actions.append(action)
            if action.kind == Kind.B and (action.microbatch + 1) % every == 0:
                actions.append(Action(Kind.U, action.stage, action.microbatch))
        rows.append(tuple(actions))
    schedule = replace(schedule, name=name, actions=tuple(rows), flush=False)
    return replace(schedule, weight_versions=weight_versions(schedule))


PIPEDREAM = Family(
    name="pipedream",
    summary="asynchronous 1F1B, an update after every microbatch, at most p weight versions",
    source="Narayanan et al. 2019, SOSP (PipeDream)",
    build=pipedream,
    build_steps=pipedream,
    flush=False,
)

PIPEDREAM_2BW = Family(
    name="pipedream-2bw",
    summary="asynchronous 1F1B with gradient accumulation and two weight versions",
    source="Narayanan et al. 2021, arXiv 2006.09503",
    build=pipedream_2bw,
    build_steps=pipedream_2bw,
    flush=False,
)
