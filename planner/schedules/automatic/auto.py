"""Find a schedule for given durations, transfers and memory.

    every named family that fits, refilled ─┐
    patterns for a V, without gaps ─────────┼─► the shortest cycle ─► small changes, while they help
    generated: placements × policies ───────┘

The result is never longer than the best named family with a flush that keeps the same limit. Everything stops
when the cycle equals the work of the busiest rank: nothing can be shorter. Of named families that reach that
bound the one is taken that holds least.
"""

from __future__ import annotations

import gc
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from operator import itemgetter

from planner.schedules.action import Schedule
from planner.schedules.automatic.auto_large import best_of_large
from planner.schedules.automatic.candidates import Published, named, unnamed
from planner.schedules.automatic.improve import improve
from planner.schedules.automatic.problem import Problem
from planner.schedules.automatic.score import Score, score_of
from planner.schedules.memory import peak_activations
from planner.schedules.simulate import simulate
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes
from profiles.errors import InfeasibleError

_LARGE = 40_000  # actions above which candidates are compared on fewer microbatches
_SEARCHES, _STARTS, _FEWEST_TRIES, _MOST_TRIES = 12, 4, 30, 4000
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
    steps = effort // sum(map(len, starts[0].actions))
    searches = min(_SEARCHES, steps // _FEWEST_TRIES)
    tries = min(_MOST_TRIES, steps // max(1, searches))
    found = starts[:1]
    for seed in range(searches):
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
    published, leaders = Published(problem), _Leaders(problem)
    families = [schedule for schedule in (maker(published) for maker in named()) if schedule is not None]
    scores = [leaders.enter(schedule) for schedule in families]
    reached = [
        schedule for schedule, score in zip(families, scores, strict=True) if score and score[0] <= bound
    ]
    if reached:
        return [min(reached, key=lambda schedule: max(peak_activations(schedule)))]
    for maker in unnamed(problem, thorough=True):
        schedule = maker(published, leaders.within)
        score = None if schedule is None else leaders.enter(schedule)
        if score is not None and score[0] <= bound:
            break
    assert leaders.rows  # naive holds one microbatch, which every limit allows; of several chunks, generated
    best = [schedule for _, schedule in leaders.rows]
    return best[:1] if leaders.rows[0][0][0] <= bound else best


@dataclass
class _Leaders:
    """The best schedules so far, no two alike: the search by small changes starts from them."""

    problem: Problem
    rows: list[tuple[Score, Schedule]] = field(default_factory=list)

    @property
    def within(self) -> float:
        """The cycle beyond which a schedule is not among them."""
        return self.rows[-1][0][0] * (1 + 1e-9) if len(self.rows) == _STARTS else inf

    def enter(self, schedule: Schedule) -> Score | None:
        """Return the score of a schedule, or None where it does not fit."""
        score = self.problem.score(schedule)
        if score is not None and all(schedule.actions != other.actions for _, other in self.rows):
            insort(self.rows, (score, schedule), key=itemgetter(0))
            del self.rows[_STARTS:]
        return score


def auto_by_name(ranks: int, microbatches: int, chunks: int) -> Schedule:
    """Return the schedule that the name alone stands for: F = I = W, nothing in between."""
    problem = Problem(
        ranks=ranks,
        microbatches=microbatches,
        chunks=chunks,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement)),
    )
    return auto(problem, effort=EFFORT // 10)  # for F = I = W little is left to improve, and plans build many
