"""Find a schedule for given durations, transfers and memory.

    every named family that fits ─┐
    generated: placements × policies ├─► the shortest cycle ─► small changes, while they help ─► schedule
    V-shaped blocks, refilled ─────┘

The result is never longer than the best named family with a flush that keeps the same limit. Everything stops
when the cycle equals the work of the busiest rank: nothing can be shorter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from planner.schedules.action import Action, Kind, Schedule, loop_placement, v_placement
from planner.schedules.family import Family, ScheduleError
from planner.schedules.fill import fill_weights
from planner.schedules.generate import Policy, generate
from planner.schedules.improve import improve, score_of
from planner.schedules.memory import peak_stage_activations
from planner.schedules.named import NAMED, build_family
from planner.schedules.prolong import COMMON, prolong, short_enough, steady_rise
from planner.schedules.simulate import simulate
from planner.schedules.times import StageTimes
from profiles.errors import InfeasibleError

TimesOf = Callable[[Sequence[int]], StageTimes]
Score = tuple[float, float, float]  # of `score_of`

_LARGE = 40_000  # actions above which candidates are compared on fewer microbatches
_FAR = 1.12  # a family that is so much longer than the best is not worth filling its gaps
_SEARCHES, _STARTS, _MOST_TRIES = 12, 4, 4000
EFFORT = 400_000  # actions simulated while improving, about a second


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a schedule is wanted for.

    `times_of` gives the stage times for a placement (stage → rank). `chunks` of None leaves the stages per
    rank open (1 or 2). `memory_limit` is in microbatches through all of a rank's layers; None is no limit.
    """

    ranks: int
    microbatches: int
    times_of: TimesOf
    chunks: int | None = None
    memory_limit: float | None = None

    def placements(self) -> list[tuple[int, ...]]:
        """Return the placements to try; stages per rank alike in each."""
        options = (1, 2) if self.chunks is None else (self.chunks,)
        found = []
        for chunks in options:
            found.append(loop_placement(self.ranks, chunks))
            if chunks > 1 and self.ranks > 1:
                found.append(v_placement(self.ranks, chunks))
        return found

    def limits(self, chunks: int) -> tuple[int, ...]:
        """Return the most stage activations per rank."""
        most = chunks * self.microbatches
        if self.memory_limit is not None:
            most = min(most, int(self.memory_limit * chunks + 1e-9))
        return (most,) * self.ranks

    def bound(self) -> float:
        """Return a cycle that no schedule can beat: the least work of the busiest rank."""
        return min(self._work(placement) for placement in self.placements())

    def _work(self, placement: tuple[int, ...]) -> float:
        times = self.times_of(placement)
        work = [0.0] * self.ranks
        for stage, rank in enumerate(placement):
            split = times.input_gradient[stage] + times.weight_gradient[stage]
            work[rank] += self.microbatches * (times.forward[stage] + min(split, times.backward[stage]))
        return max(work)


def auto(problem: Problem, *, effort: int = EFFORT) -> Schedule:
    """Return the best schedule found; deterministic. `effort` bounds the search by small changes.

    Raises:
        InfeasibleError: when the memory limit is below one microbatch.
    """
    if problem.memory_limit is not None and problem.memory_limit < 1 - 1e-9:
        raise InfeasibleError(
            f"a memory limit of {problem.memory_limit:.4g} microbatches: every rank must hold at least 1 from"
            " forward to backward; raise --memory-limit"
        )
    bound = problem.bound() * (1 + 1e-9)
    starts = _best(problem, bound)
    tries = min(_MOST_TRIES, effort // (_SEARCHES * sum(map(len, starts[0].actions))))
    if not tries:
        return replace(starts[0], name="auto")
    found = starts[:1]
    for seed in range(_SEARCHES):
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
    best = min(found, key=lambda schedule: score_of(simulate(schedule, problem.times_of(schedule.placement))))
    return replace(best, name="auto")


def _best(problem: Problem, bound: float) -> list[Schedule]:
    """Return the best candidates; for large problems of those that are best with fewer microbatches."""
    if 3 * problem.ranks * problem.microbatches * (problem.chunks or 1) <= _LARGE:
        return _ranked(problem, _made(problem, _makers(problem, thorough=True)), bound)
    small = replace(problem, microbatches=min(problem.microbatches, 3 * problem.ranks // 2))
    unfit: set[Maker] = set()
    while True:  # what keeps the limit with few microbatches may exceed it with many; naive never does
        finalists = _finalists(small, unfit)
        best, failed = _best_of(problem, finalists)
        if best is not None:
            return [best]
        unfit |= failed


def _made(problem: Problem, makers: Iterable[Maker]) -> Iterator[Schedule | None]:
    """Yield what the makers make, none when they cannot."""
    published = cache(partial(_published, problem))
    return (maker(problem, published) for maker in makers)


def _best_of(problem: Problem, makers: Iterable[Maker]) -> tuple[Schedule | None, set[Maker]]:
    """Return the best of what is made, prolonged from fewer microbatches where that can be foretold, and the
    makers of what does not fit.
    """
    short = replace(problem, microbatches=short_enough(problem.ranks, problem.microbatches))
    published = cache(partial(_published, short))
    scored: list[tuple[Score, int, Schedule]] = []
    failed: set[Maker] = set()
    for index, maker in enumerate(makers):
        schedule = maker(short, published)
        score = None if schedule is None else _foretold(problem, schedule)
        if score is None:
            (schedule,) = _made(problem, [maker])
            score = _score(problem, schedule)
        if schedule is not None and score is not None:
            scored.append((score, index, schedule))
        else:
            failed.add(maker)
    if failed:
        return None, failed
    _, _, best = min(scored, key=lambda entry: entry[:2])
    if best.microbatches < problem.microbatches:
        longer = prolong(best, problem.microbatches)
        assert longer is not None  # its score was foretold from a prolonged one
        return longer, failed
    return best, failed


def _foretold(problem: Problem, short: Schedule) -> Score | None:
    """Return the score of `short` prolonged, or None where that cannot be told from two more rounds of it."""
    sample = prolong(short, short.microbatches + 2 * COMMON)
    if sample is None or sample.microbatches > problem.microbatches or not _keeps_limit(problem, sample):
        return None
    timeline = simulate(sample, problem.times_of(sample.placement))
    rise = steady_rise(timeline, COMMON)
    if rise is None:
        return None
    more = rise * ((problem.microbatches - sample.microbatches) // COMMON)
    cycle, spans, makespan = score_of(timeline)
    return round(cycle + more, 9), round(spans + problem.ranks * more, 9), round(makespan + more, 9)


def _finalists(small: Problem, unfit: Collection[Maker]) -> list[Maker]:
    """Return what is best for `small`, and the best named family, which the result must not lose to.

    Those in `unfit` are left out.
    """
    bound = small.bound() * (1 + 1e-9)
    scored: list[tuple[Score, int, Maker]] = []
    published = cache(partial(_published, small))
    named: dict[Family, float] = {}
    best = float("inf")
    for index, maker in enumerate(_makers(small, thorough=False)):
        if maker in unfit:
            continue
        if isinstance(maker, Refilled) and named.get(maker.family, float("inf")) > _FAR * best:
            continue
        score = _score(small, maker(small, published))
        if score is None:
            continue
        scored.append((score, index, maker))
        best = min(best, score[0])
        if isinstance(maker, Named):
            named[maker.family] = score[0]
        if score[0] <= bound:
            break
    ranked = [maker for _, _, maker in sorted(scored, key=lambda entry: entry[:2])]
    families = [maker for maker in ranked if isinstance(maker, Named)]
    return [ranked[0]] if ranked[0] in families else [ranked[0], *families[:1]]


def _ranked(problem: Problem, schedules: Iterable[Schedule | None], bound: float) -> list[Schedule]:
    """Return the best candidates, best first; only the first that reaches `bound`, if one does."""
    scored: list[tuple[Score, int, Schedule]] = []
    for index, schedule in enumerate(schedules):
        score = _score(problem, schedule)
        if score is None or schedule is None:
            continue
        if score[0] <= bound:
            return [schedule]
        scored.append((score, index, schedule))
    scored.sort(key=lambda entry: entry[:2])
    best: list[Schedule] = []
    for _, _, schedule in scored:
        if all(schedule.actions != other.actions for other in best):
            best.append(schedule)
    assert best  # naive holds one microbatch, which every limit allows
    return best[:_STARTS]


def _score(problem: Problem, schedule: Schedule | None) -> Score | None:
    """Return what is minimised, or None for a schedule that does not exist or does not fit."""
    if schedule is None:
        return None
    if not _keeps_limit(problem, schedule):
        return None
    return score_of(simulate(schedule, problem.times_of(schedule.placement)))


def _keeps_limit(problem: Problem, schedule: Schedule) -> bool:
    limits = problem.limits(schedule.chunks)
    return all(peak <= limit for peak, limit in zip(peak_stage_activations(schedule), limits, strict=True))


def _makers(problem: Problem, *, thorough: bool) -> Iterator[Maker]:
    """Yield what makes one candidate each; cheap and promising ones first."""
    families = [family for family in NAMED if family.flush]
    yield from map(Named, families)
    yield from (Refilled(family) for family in families if family.split)
    for placement in problem.placements():
        for policy in _policies(problem) if thorough else _FEW_POLICIES:
            yield Generated(placement, policy)


_FEW_POLICIES = (Policy(), Policy(patience=0.5))


def _policies(problem: Problem) -> Iterator[Policy]:
    for split, forward_first, deep_first in itertools.product((True, False), (False, True), (True, False)):
        for patience in (0.0, 0.5, 1.0) if split else (0.0,):
            yield Policy(split=split, forward_first=forward_first, deep_first=deep_first, patience=patience)
    actions = 3 * problem.ranks * problem.microbatches
    for seed in range(min(40, 40_000 // actions)):
        yield Policy(noise=0.5 if seed % 2 else 0.15, seed=seed, patience=(0.0, 0.5)[seed % 4 // 2])


def _published(problem: Problem, family: Family) -> Schedule | None:
    """Return a family's schedule for `problem`, if it has one."""
    try:
        return build_family(
            family, ranks=problem.ranks, microbatches=problem.microbatches, chunks=problem.chunks
        )
    except ScheduleError:
        return None  # not with these chunks


Published = Callable[[Family], Schedule | None]  # `_published` of one problem, built once


@dataclass(frozen=True)
class Named:
    """A named family as published."""

    family: Family

    def __call__(self, problem: Problem, published: Published) -> Schedule | None:
        """Return its schedule for `problem`, if it has one."""
        return published(self.family)


@dataclass(frozen=True)
class Refilled:
    """A family's order of F and I, with each W where these durations leave a gap."""

    family: Family

    def __call__(self, problem: Problem, published: Published) -> Schedule | None:
        """Return its schedule for `problem`, if it has one."""
        schedule = published(self.family)
        if schedule is None:
            return None
        orders = [
            [
                action._replace(kind=Kind.F if action.kind == Kind.F else Kind.I)
                for action in row
                if action.kind != Kind.W
            ]
            for row in schedule.actions
        ]
        limits = problem.limits(schedule.chunks)
        if problem.memory_limit is None:
            limits = peak_stage_activations(schedule)
        elif any(_least(order) > limit for order, limit in zip(orders, limits, strict=True)):
            return None  # too much in flight wherever the W go
        return fill_weights(
            orders,
            name="auto",
            microbatches=problem.microbatches,
            placement=schedule.placement,
            times=problem.times_of(schedule.placement),
            limits=limits,
        )


@dataclass(frozen=True)
class Generated:
    """A schedule grown action by action under one policy."""

    placement: tuple[int, ...]
    policy: Policy

    def __call__(self, problem: Problem, published: Published) -> Schedule:
        """Return its schedule for `problem`."""
        return generate(
            name="auto",
            microbatches=problem.microbatches,
            placement=self.placement,
            times=problem.times_of(self.placement),
            limits=problem.limits(len(self.placement) // problem.ranks),
            policy=self.policy,
        )


Maker = Named | Refilled | Generated


def _least(order: Sequence[Action]) -> int:
    """Return the most activations held by a rank with this order of F and I, each W done at once."""
    changes = (1 if action.kind == Kind.F else -1 for action in order)
    return max(itertools.accumulate(changes))


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
