"""`auto` for many microbatches: most candidates are built for few, and what many take is foretold.

named families   foretold for all microbatches, or simulated: none that fits may beat the result
all others       compared with the best family on few microbatches; the best of those that win there is
                 made for all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from planner.schedules.action import Schedule
from planner.schedules.candidates import Maker, Published, Refilled, named, unnamed
from planner.schedules.family import Family
from planner.schedules.problem import Problem
from planner.schedules.prolong import COMMON, prolong, short_enough, steady_rise
from planner.schedules.score import Score, score_of
from planner.schedules.simulate import simulate

_FAR = 1.12  # a family that is so much longer than the best is not worth filling its gaps
_FEW = 2  # microbatches per rank on which others are compared: enough for zero bubble (m ≥ 2p − 1)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A candidate that fits: its score with all microbatches, and its schedule for all or for few."""

    maker: Maker
    score: Score
    schedule: Schedule


def best_of_large(problem: Problem, bound: float) -> Schedule:
    """Return the best schedule found; never longer than the best named family that keeps the limit."""
    full = Published(problem)
    short = Published(replace(problem, microbatches=short_enough(problem.ranks, problem.microbatches)))
    families: dict[Family, _Entry] = {}
    # Nothing but zero bubble can reach the bound, unless there is but one rank.
    for maker in sorted(named(), key=lambda maker: problem.ranks > 1 and not maker.family.seamless):
        entry = _entry(maker, short, full)
        if entry is not None:
            families[maker.family] = entry
            if entry.score[0] <= bound:
                return _whole(entry, problem)
    best = min(families.values(), key=lambda entry: entry.score)
    for challenger in _challengers(problem, families, best):
        entry = _entry(challenger, short, full)
        if entry is not None:
            return _whole(min(best, entry, key=lambda each: each.score), problem)
    return _whole(best, problem)


def _entry(maker: Maker, short: Published, full: Published) -> _Entry | None:
    """Return a candidate with its score, or None where it does not exist or does not fit."""
    schedule = maker(short)
    if schedule is None or not short.problem.keeps_limit(schedule):
        return None  # with more microbatches none holds less
    score = _foretold(full.problem, schedule)
    if score is None:
        schedule = maker(full)
        score = None if schedule is None else full.problem.score(schedule)
    return None if schedule is None or score is None else _Entry(maker=maker, score=score, schedule=schedule)


def _whole(entry: _Entry, problem: Problem) -> Schedule:
    """Return a candidate's schedule for all microbatches."""
    if entry.schedule.microbatches == problem.microbatches:
        return entry.schedule
    longer = prolong(entry.schedule, problem.microbatches)
    assert longer is not None  # its score was foretold from a prolonged one
    return longer


def _foretold(problem: Problem, short: Schedule) -> Score | None:
    """Return the score of `short` prolonged, or None where that cannot be told from two more rounds of it."""
    sample = prolong(short, short.microbatches + 2 * COMMON)
    if sample is None or sample.microbatches > problem.microbatches or not problem.keeps_limit(sample):
        return None
    timeline = simulate(sample, problem.times_of(sample.placement))
    rise = steady_rise(timeline, COMMON)
    if rise is None:
        return None
    more = rise * ((problem.microbatches - sample.microbatches) // COMMON)
    cycle, spans, makespan = score_of(timeline)
    return round(cycle + more, 9), round(spans + problem.ranks * more, 9), round(makespan + more, 9)


def _challengers(problem: Problem, families: Mapping[Family, _Entry], best: _Entry) -> Iterator[Maker]:
    """Yield those that beat the best family with few microbatches, best first.

    What keeps the limit with few may exceed it with many.
    """
    few = replace(problem, microbatches=min(problem.microbatches, _FEW * problem.ranks))
    published, bound = Published(few), few.bound() * (1 + 1e-9)
    mark = _score(best.maker, published)
    scored: list[tuple[Score, int, Maker]] = []
    for index, maker in enumerate(unnamed(few, thorough=False)):
        if isinstance(maker, Refilled) and _is_far(families.get(maker.family), best):
            continue
        score = _score(maker, published)
        if score is None or (mark is not None and score >= mark):
            continue
        scored.append((score, index, maker))
        if score[0] <= bound:
            break
    yield from (maker for _, _, maker in sorted(scored, key=lambda entry: entry[:2]))


def _is_far(entry: _Entry | None, best: _Entry) -> bool:
    return entry is not None and entry.score[0] > _FAR * best.score[0]


def _score(maker: Maker, published: Published) -> Score | None:
    schedule = maker(published)
    return None if schedule is None else published.problem.score(schedule)
