"""Large problems, made small by the caller: `best_of_large` takes any size."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedules import (
    FAMILIES,
    Schedule,
    ScheduleError,
    StageTimes,
    build,
    check,
    find_family,
    peak_activations,
    simulate,
)
from planner.schedules.automatic import Problem, auto
from planner.schedules.automatic.auto_large import best_of_large, least_cycle


def families(problem: Problem) -> list[Schedule]:
    """All named families that exist for `problem` and keep its limit."""
    found = []
    for family in FAMILIES:
        try:
            schedule = build(
                family.name, ranks=problem.ranks, microbatches=problem.microbatches, chunks=problem.chunks
            )
        except ScheduleError:
            continue
        if schedule.flush and max(peak_activations(schedule)) <= (problem.memory_limit or float("inf")):
            found.append(schedule)
    return found


def uneven(
    ranks: int,
    microbatches: int,
    *,
    forward: float,
    inputs: float,
    weights: float,
    latency: float = 0.0,
    limit: float | None = None,
) -> Problem:
    """A problem whose forwards, input and weight gradients take different times, on all ranks alike."""

    def times(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(
            stages=len(placement),
            chunks=len(placement) // ranks,
            forward=forward,
            input_gradient=inputs,
            weight_gradient=weights,
            latency=latency,
        )

    return Problem(ranks=ranks, microbatches=microbatches, times_of=times, memory_limit=limit)


@pytest.mark.parametrize("seed", range(8))
def test_no_named_family_is_shorter(seed: int) -> None:
    chance = random.Random(seed)
    ranks, microbatches = chance.randint(2, 5), chance.randint(40, 90)
    forward, inputs, weights = (chance.choice((0.5, 0.8, 1.0, 1.5)) for _ in range(3))
    latency = chance.choice((0.0, 0.1))

    limit = chance.choice((None, 1.0, ranks / 2 + 1, float(ranks), 2.0 * ranks))
    problem = uneven(
        ranks,
        microbatches,
        forward=forward,
        inputs=inputs,
        weights=weights,
        latency=latency,
        limit=limit,
    )
    found = best_of_large(problem, problem.bound()).schedule
    check(found)
    assert found.microbatches == microbatches
    assert max(peak_activations(found)) <= (limit or float("inf"))
    cycle = simulate(found, problem.times_of(found.placement)).cycle
    for family in families(problem):
        assert cycle <= simulate(family, problem.times_of(family.placement)).cycle * (1 + 1e-9), family.name


def test_many_microbatches_reach_the_bound_that_few_do_not() -> None:
    # ZB-H2 waits with fewer than 2p − 1 microbatches, and never with more.
    ranks = 6
    problem = Problem(
        ranks=ranks,
        microbatches=120,
        chunks=1,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement)),
    )
    found = best_of_large(problem, problem.bound()).schedule
    assert simulate(found, problem.times_of(found.placement)).cycle == problem.bound() == 3 * 120


@pytest.mark.parametrize("unit", [1e-12, 1e6])
def test_the_unit_of_time_decides_nothing(unit: float) -> None:
    problem = uneven(
        4, 64, forward=unit, inputs=1.3 * unit, weights=0.7 * unit, latency=0.2 * unit, limit=4.0
    )
    found = best_of_large(problem, problem.bound()).schedule
    cycle = simulate(found, problem.times_of(found.placement)).cycle
    for family in families(problem):
        assert cycle <= simulate(family, problem.times_of(family.placement)).cycle * (1 + 1e-9), family.name


@pytest.mark.parametrize("limit", [None, 18.0])
def test_uneven_work_reaches_the_bound_where_memory_allows(limit: float | None) -> None:
    # No family's order was made for these durations: each leaves a gap in every schedule.
    problem = uneven(6, 120, forward=1.0, inputs=1.2, weights=0.8, limit=limit)
    found = best_of_large(problem, problem.bound() * (1 + 1e-9)).schedule
    check(found)
    cycle = simulate(found, problem.times_of(found.placement)).cycle
    assert cycle == pytest.approx(problem.bound())
    assert max(peak_activations(found)) <= (limit or 4 * 6)
    assert all(
        simulate(family, problem.times_of(family.placement)).cycle > cycle + 0.1
        for family in families(problem)
    )


@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_with_less_memory_than_any_family_needs_there_is_a_schedule(limit: float) -> None:
    # Of two stages a rank, no family holds as little as one microbatch.
    problem = Problem(
        ranks=4,
        microbatches=40,
        chunks=2,
        memory_limit=limit,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement), chunks=2),
    )
    assert not families(problem)
    found = best_of_large(problem, problem.bound()).schedule
    check(found)
    assert max(peak_activations(found)) <= limit


@pytest.mark.parametrize("limit", [5.0, 6.0, 7.5])
def test_uneven_work_within_memory_is_shorter_than_any_family(limit: float) -> None:
    # Below p microbatches only V-half and V-min fit, whose ranks wait for each other when F, I and W differ.
    problem = uneven(8, 120, forward=1.0, inputs=1.2, weights=0.8, limit=limit)
    found = best_of_large(problem, problem.bound() * (1 + 1e-9)).schedule
    check(found)
    assert max(peak_activations(found)) <= limit
    cycle = simulate(found, problem.times_of(found.placement)).cycle
    best = min(simulate(family, problem.times_of(family.placement)).cycle for family in families(problem))
    assert cycle <= 0.95 * best


@pytest.mark.parametrize("find", [auto, lambda problem: best_of_large(problem, problem.bound()).schedule])
def test_of_equally_short_families_the_one_that_holds_least_is_taken(
    find: Callable[[Problem], Schedule],
) -> None:
    # ZB-H2 reaches the bound with 2p − 1 microbatches in flight, ZB-V with p.
    problem = Problem(
        ranks=4,
        microbatches=24,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement), chunks=len(placement) // 4),
    )
    found = find(problem)
    assert simulate(found, problem.times_of(found.placement)).cycle == problem.bound() == 3 * 24
    assert max(peak_activations(found)) == 4


@given(data=st.data())
def test_no_family_with_whole_backwards_is_shorter_than_its_least_cycle(data: st.DataObject) -> None:
    ranks, chunks = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 3))
    stages = ranks * chunks
    seconds = st.lists(st.floats(0.1, 2.0), min_size=stages, max_size=stages).map(tuple)
    times = StageTimes(
        forward=data.draw(seconds),
        input_gradient=data.draw(seconds),
        weight_gradient=data.draw(seconds),
        latency=data.draw(st.sampled_from((0.0, 0.3))),
    )
    problem = Problem(
        ranks=ranks,
        microbatches=data.draw(st.integers(1, 3)) * ranks,
        chunks=chunks,
        times_of=lambda placement: times,
    )
    for family in FAMILIES:
        if not family.flush or family.split or not (family.chunked or chunks == family.chunks):
            continue
        schedule = build(family.name, ranks=ranks, microbatches=problem.microbatches, chunks=chunks)
        assert simulate(schedule, times).cycle >= least_cycle(family, problem), family.name


def test_the_least_cycle_is_that_of_even_stages() -> None:
    problem = Problem(
        ranks=4,
        microbatches=8,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement), chunks=len(placement) // 4),
    )
    for name in ("gpipe", "1f1b", "interleaved-1f1b", "looped-bfs"):
        family = find_family(name)
        schedule = build(name, ranks=4, microbatches=8)
        cycle = simulate(schedule, problem.times_of(schedule.placement)).cycle
        assert least_cycle(family, problem) == pytest.approx(cycle), name
