"""Find a schedule for given durations, transfers and memory.

    every named family that fits ─┐
    generated: placements × policies ├─► the shortest cycle ─► small changes, while they help ─► schedule
    V-shaped blocks, refilled ─────┘

The result is never longer than the best named family with a flush that keeps the same limit. Everything stops
when the cycle equals the work of the busiest rank: nothing can be shorter. Of named families that reach that
bound the one is taken that holds least.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from planner.schedules.action import Schedule
from planner.schedules.auto_large import best_of_large
from planner.schedules.candidates import Published, named, unnamed
from planner.schedules.family import Family
from planner.schedules.improve import improve
from planner.schedules.memory import peak_activations
from planner.schedules.problem import Problem
from planner.schedules.score import Score, score_of
from planner.schedules.simulate import simulate
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes
from profiles.errors import InfeasibleError

_LARGE = 40_000  # actions above which candidates are compared on fewer microbatches
_SEARCHES, _STARTS, _MOST_TRIES = 12, 4, 4000
EFFORT = 400_000  # actions simulated while improving, about a second


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pause the collector of cyclic garbage: cells are made by the million, and hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def auto(problem: Problem, *, effort: int = EFFORT) -> Schedule:
    """Return the best schedule found; see `auto_timeline`."""
    return auto_timeline(problem, effort=effort).schedule


@_no_collector()
def auto_timeline(problem: Problem, *, effort: int = EFFORT) -> Timeline:
    """Return the best schedule found, simulated; deterministic. `effort` bounds the search by small changes.

    Raises:
        InfeasibleError: when the memory limit is below one microbatch.
    """
    if problem.memory_limit is not None and problem.memory_limit < 1 - 1e-9:
        raise InfeasibleError(
            f"a memory limit of {problem.memory_limit:.4g} microbatches: every rank must hold at least 1 from"
            " forward to backward; raise --memory-limit"
        )
    bound = problem.bound() * (1 + 1e-9)
    if 3 * problem.ranks * problem.microbatches * (problem.chunks or 1) > _LARGE:
        return _named_auto(best_of_large(problem, bound))
    starts = _best(problem, bound)
    tries = min(_MOST_TRIES, effort // (_SEARCHES * sum(map(len, starts[0].actions))))
    found = starts[:1]
    for seed in range(_SEARCHES if tries else 0):
        start = starts[seed % len(starts)]
        found.append(
            improve(
                start,
                problem.times_of(start.placement),
                limits=problem.limits(start.chunks),
                tries=tries,
                bound=bound,
                seed=seed,
            )
        )
    timelines = (simulate(schedule, problem.times_of(schedule.placement)) for schedule in found)
    return _named_auto(min(timelines, key=score_of))


def _named_auto(timeline: Timeline) -> Timeline:
    return replace(timeline, schedule=replace(timeline.schedule, name="auto"))


def _best(problem: Problem, bound: float) -> list[Schedule]:
    """Return the best candidates."""
    published = Published(problem)
    families = _scored(problem, (maker(published) for maker in named()))
    reached = [schedule for score, schedule in families if score[0] <= bound]
    if reached:
        return [min(reached, key=lambda schedule: max(peak_activations(schedule)))]
    others = _scored(problem, (maker(published) for maker in unnamed(problem, thorough=True)), bound=bound)
    scored = sorted(families + others, key=lambda entry: entry[0])
    assert scored  # naive holds one microbatch, which every limit allows
    if scored[0][0][0] <= bound:
        return [scored[0][1]]
    best: list[Schedule] = []
    for _, schedule in scored:
        if all(schedule.actions != other.actions for other in best):
            best.append(schedule)
    return best[:_STARTS]


def _scored(
    problem: Problem, schedules: Iterable[Schedule | None], *, bound: float = 0.0
) -> list[tuple[Score, Schedule]]:
    """Return those that exist and fit, with their scores; none after one that reaches `bound`."""
    found: list[tuple[Score, Schedule]] = []
    for schedule in schedules:
        score = None if schedule is None else problem.score(schedule)
        if score is None or schedule is None:
            continue
        found.append((score, schedule))
        if score[0] <= bound:
            break
    return found


def _auto_by_name(ranks: int, microbatches: int, chunks: int) -> Schedule:
    problem = Problem(
        ranks=ranks,
        microbatches=microbatches,
        chunks=chunks,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement)),
    )
    return auto(problem)


AUTO = Family(
    name="auto",
    summary="searched for the given durations, transfers and memory; by name alone for F = I = W",
    source="Cuboid",
    build=_auto_by_name,
    chunked=True,
    split=True,
)
