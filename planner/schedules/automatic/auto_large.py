"""`auto` for many microbatches: most candidates are built for few, and what many take is foretold.

named families   foretold for all microbatches, or simulated: none that fits may beat the result; those that
                 a bound already excludes are left out
roomy            where memory allows, one generated for all microbatches: with room for four times as many
                 as there are ranks, hardly any durations leave a gap
patterns         for a V, compared on few microbatches; the best is made for all
all others       unless that is close to the bound: compared with the best so far on few microbatches; the
                 best of those that win there is made for all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from planner.schedules.action import Schedule, loop_placement, v_placement
from planner.schedules.automatic.candidates import (
    Generated,
    Maker,
    Named,
    Patterned,
    Published,
    Refilled,
    named,
    patterned,
    unnamed,
)
from planner.schedules.automatic.generate import Policy
from planner.schedules.automatic.problem import Problem
from planner.schedules.automatic.prolong import COMMON, prolong, short_enough, steady_rise
from planner.schedules.automatic.score import Score, rounded, score_of
from planner.schedules.family import Family
from planner.schedules.memory import peak_activations
from planner.schedules.simulate import simulate
from planner.schedules.timeline import Timeline

_CLOSE = 1.002  # within so much of the bound nothing else is looked for
_ROOM = 4  # microbatches per rank beyond which memory no longer shortens a step
_FAR = 1.12  # a family that is so much longer than the best is not worth filling its gaps


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A candidate that fits: its score with all microbatches, and its schedule for all or for few.

    `timeline` and `few` (the score with few microbatches) are kept where they are known.
    """

    maker: Maker
    score: Score
    schedule: Schedule
    timeline: Timeline | None = None
    few: Score | None = None


def best_of_large(problem: Problem, bound: float) -> Timeline:
    """Return the best schedule found, simulated; never longer than a named family that keeps the limit."""
    full = Published(problem)
    short = Published(replace(problem, microbatches=short_enough(problem.ranks, problem.microbatches)))
    found: list[_Entry] = []
    for makers in _by_promise(problem):
        for maker in makers:
            entry = _entry_below(min((each.score[0] for each in found), default=inf), maker, short, full)
            found += [entry] if entry else []
        reached = [entry for entry in found if entry.score[0] <= bound]
        if reached:
            return _whole(min(reached, key=_by_memory), problem)
    if not found:  # of one chunk a rank, naive keeps every limit; of more, perhaps no family does
        generated = _entry(
            Generated(loop_placement(problem.ranks, problem.chunks or 1), Policy()), short, full
        )
        assert generated is not None  # a generated schedule keeps any limit from one microbatch up
        found = [generated]
    best = min(found, key=lambda entry: entry.score)
    if best.score[0] > _CLOSE * bound:
        pattern = _patterned(short, full, best.score[0])
        best = min(best, pattern or best, key=lambda entry: entry.score)
    if best.score[0] > _CLOSE * bound:
        families = {entry.maker.family: entry for entry in found if isinstance(entry.maker, Named)}
        made = (_entry(challenger, short, full) for challenger in _challengers(short, families, best))
        challenger = next((entry for entry in made if entry), best)
        best = min(best, challenger, key=lambda entry: entry.score)
    return _whole(best, problem)


def _entry_below(cycle: float, maker: Named | Generated, short: Published, full: Published) -> _Entry | None:
    """Return a candidate, or None where it does not fit, or is a family that cannot be below `cycle`."""
    if isinstance(maker, Generated):
        return _roomy(maker, full.problem, cycle * (1 + 1e-9))
    return None if least_cycle(maker.family, full.problem) > cycle else _entry(maker, short, full)


def _by_promise(problem: Problem) -> Iterator[Sequence[Named | Generated]]:
    """Yield what could reach the bound before what cannot: with several ranks, that leaves gaps by design."""
    if problem.ranks == 1:
        yield named()
        return
    yield [maker for maker in named() if maker.family.seamless]
    yield [Generated(loop_placement(problem.ranks, problem.chunks or 1), Policy())]
    yield [maker for maker in named() if not maker.family.seamless]


def _by_memory(entry: _Entry) -> tuple[float, Score]:
    """What is preferred among equal cycles."""
    return max(peak_activations(entry.schedule)), entry.score


def _roomy(maker: Generated, problem: Problem, within: float) -> _Entry | None:
    """Return a candidate generated for all microbatches.

    None where memory forbids a step without gaps, or where its cycle is not `within` so many seconds.
    """
    most = _ROOM * problem.ranks
    if problem.memory_limit is not None and problem.memory_limit < 2 * problem.ranks - 1:
        return None
    roomy = replace(problem, memory_limit=min(most, problem.memory_limit or most))
    return _scored(maker, maker(Published(roomy), within), problem)


def _patterned(short: Published, full: Published, cycle: float) -> _Entry | None:
    """Return the best of the patterns for a V, or None where none is below `cycle`.

    Few microbatches tell them apart, but not how they compare to others: with many, what counts is that each
    further one takes a period.
    """
    problem, makers = full.problem, patterned(full.problem)
    if not makers:
        return None
    placement = v_placement(problem.ranks)
    period = max(problem.times_of(placement).work(placement, 1, split=True))
    rest = (problem.microbatches - short.problem.microbatches) * period
    best: tuple[Score, Maker, Schedule] | None = None
    for maker in makers:
        schedule = maker(short, cycle - rest)
        score = None if schedule is None else short.problem.score(schedule)
        if schedule is not None and score is not None and (best is None or score < best[0]):
            best, cycle = (score, maker, schedule), score[0] + rest
    if best is None:
        return None
    few, found, schedule = best
    return _scored(found, prolong(schedule, problem.microbatches) or found(full), problem, few=few)


def least_cycle(family: Family, problem: Problem) -> float:
    """Return a cycle that `family` cannot beat; 0 where none is known.

    Where backwards are whole and stages lie in a loop, what reaches rank r first passed all ranks before it,
    and rank r's last gradient passes them again: rank 0 waits for both, beside all of rank r's work.

        rank 0   F0 ─┐                              ┌─ B0
        rank r       └─ F … m microbatches … B ─────┘
    """
    if family.split or family.placement != "loop":
        return 0.0
    chunks = problem.chunks or family.chunks
    times = problem.times_of(loop_placement(problem.ranks, chunks))
    both = [forward + backward for forward, backward in zip(times.forward, times.backward, strict=True)]
    work = [problem.microbatches * sum(both[rank :: problem.ranks]) for rank in range(problem.ranks)]
    return max(sum(both[:rank]) + work[rank] for rank in range(problem.ranks)) * (1 - 1e-9)


def _entry(maker: Maker, short: Published, full: Published) -> _Entry | None:
    """Return a candidate with its score, or None where it does not exist or does not fit."""
    schedule = maker(short)
    if schedule is None or not short.problem.keeps_limit(schedule):
        return None  # with more microbatches none holds less
    score = _foretold(full.problem, schedule)
    if score is None:
        # A family's own schedule counts; of what is found for these durations, one as good does.
        longer = None if isinstance(maker, Named) else prolong(schedule, full.problem.microbatches)
        return _scored(maker, longer or maker(full), full.problem)
    return _Entry(maker=maker, score=score, schedule=schedule)


def _scored(
    maker: Maker, schedule: Schedule | None, problem: Problem, *, few: Score | None = None
) -> _Entry | None:
    """Return a candidate with its schedule for all microbatches, or None where that does not fit."""
    if schedule is None or not problem.keeps_limit(schedule):
        return None
    timeline = simulate(schedule, problem.times_of(schedule.placement))
    return _Entry(maker=maker, score=score_of(timeline), schedule=schedule, timeline=timeline, few=few)


def _whole(entry: _Entry, problem: Problem) -> Timeline:
    """Return the timeline of a candidate with all microbatches."""
    if entry.timeline is not None:
        return entry.timeline
    schedule: Schedule | None = entry.schedule
    if entry.schedule.microbatches < problem.microbatches:
        schedule = prolong(entry.schedule, problem.microbatches)
    assert schedule is not None  # its score was foretold from a prolonged one
    return simulate(schedule, problem.times_of(schedule.placement))


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
    return rounded(cycle + more), rounded(spans + problem.ranks * more), rounded(makespan + more)


def _challengers(short: Published, families: Mapping[Family, _Entry], best: _Entry) -> Iterator[Maker]:
    """Yield those that beat the best so far with few microbatches, best first.

    What keeps the limit with few may exceed it with many.
    """
    bound = short.problem.bound() * (1 + 1e-9)
    mark = best.few or _score(best.maker, short)
    within = inf if mark is None else mark[0] * (1 + 1e-9)
    scored: list[tuple[Score, int, Maker]] = []
    for index, maker in enumerate(unnamed(short.problem, thorough=False)):
        if isinstance(maker, Patterned):
            continue  # compared already
        if isinstance(maker, Refilled) and _is_far(families.get(maker.family), best):
            continue
        score = _score(maker, short, within)
        if score is None or (mark is not None and score >= mark):
            continue
        scored.append((score, index, maker))
        if score[0] <= bound:
            break
        if isinstance(maker, Generated):  # keeps the limit with any number of microbatches
            within = min(within, score[0] * (1 + 1e-9))
    yield from (maker for _, _, maker in sorted(scored, key=lambda entry: entry[:2]))


def _is_far(entry: _Entry | None, best: _Entry) -> bool:
    return entry is not None and entry.score[0] > _FAR * best.score[0]


def _score(maker: Maker, published: Published, within: float = inf) -> Score | None:
    schedule = maker(published, within)
    return None if schedule is None else published.problem.score(schedule)
