"""Large problems, made small by the caller: `best_of_large` takes any size."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from planner.schedules import (
    FAMILIES,
    Problem,
    Schedule,
    ScheduleError,
    StageTimes,
    build,
    check,
    peak_activations,
    simulate,
)
from planner.schedules.auto_large import best_of_large


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


@pytest.mark.parametrize("seed", range(8))
def test_no_named_family_is_shorter(seed: int) -> None:
    chance = random.Random(seed)
    ranks, microbatches = chance.randint(2, 5), chance.randint(40, 90)
    forward, inputs, weights = (chance.choice((0.5, 0.8, 1.0, 1.5)) for _ in range(3))
    latency = chance.choice((0.0, 0.1))

    def times(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(
            stages=len(placement),
            chunks=len(placement) // ranks,
            forward=forward,
            input_gradient=inputs,
            weight_gradient=weights,
            latency=latency,
        )

    limit = chance.choice((None, 1.0, ranks / 2 + 1, float(ranks), 2.0 * ranks))
    problem = Problem(ranks=ranks, microbatches=microbatches, times_of=times, memory_limit=limit)
    found = best_of_large(problem, problem.bound())
    check(found)
    assert found.microbatches == microbatches
    assert max(peak_activations(found)) <= (limit or float("inf"))
    cycle = simulate(found, times(found.placement)).cycle
    for family in families(problem):
        assert cycle <= simulate(family, times(family.placement)).cycle * (1 + 1e-9), family.name


def test_many_microbatches_reach_the_bound_that_few_do_not() -> None:
    # ZB-H2 waits with fewer than 2p − 1 microbatches, and never with more.
    ranks = 6
    problem = Problem(
        ranks=ranks,
        microbatches=120,
        chunks=1,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement)),
    )
    found = best_of_large(problem, problem.bound())
    assert simulate(found, problem.times_of(found.placement)).cycle == problem.bound() == 3 * 120
