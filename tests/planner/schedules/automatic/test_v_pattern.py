"""Patterns of a V: possible for any durations, without gaps, and as small as the published ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedules import StageTimes, check, peak_activations, simulate, v_placement
from planner.schedules.automatic import Problem
from planner.schedules.automatic.candidates import Patterned, Published
from planner.schedules.automatic.v_pattern import find_pattern


@st.composite
def stage_times(draw: st.DrawFn) -> StageTimes:
    """Uneven times of two stages on each of two to five ranks."""
    stages = 2 * draw(st.integers(2, 5))
    seconds = st.lists(st.sampled_from((0.5, 1.0, 1.3, 2.0)), min_size=stages, max_size=stages).map(tuple)
    return StageTimes(
        forward=draw(seconds),
        input_gradient=draw(seconds),
        weight_gradient=draw(seconds),
        latency=draw(st.sampled_from((0.0, 0.25))),
        wire=(draw(st.sampled_from((0.0, 0.1))),) * (stages - 1),
    )


@settings(max_examples=40)
@given(times=stage_times(), slack=st.sampled_from((0.0, 0.3)))
def test_passes_follow_each_other_and_never_meet(times: StageTimes, slack: float) -> None:
    ranks = times.stages // 2
    placement = v_placement(ranks)
    pattern = find_pattern(times, ranks, slack=slack)
    assert pattern is not None
    assert pattern.period == pytest.approx(max(times.work(placement, 1, split=True)))
    stages = [*range(times.stages), *reversed(range(times.stages))]
    durations = [*times.forward, *reversed(times.input_gradient)]
    for at, ((before, start), (after, later)) in enumerate(
        pairwise(zip(stages, pattern.starts, strict=True))
    ):
        travel = 0.0
        if placement[before] != placement[after]:
            travel = times.latency + times.wire[min(before, after)] + slack
        assert later >= start + durations[at] + travel - 1e-6
    for rank in range(ranks):
        own = sorted(
            (start % pattern.period, seconds)
            for stage, start, seconds in zip(stages, pattern.starts, durations, strict=True)
            if placement[stage] == rank
        )
        own.append((own[0][0] + pattern.period, 0.0))
        gaps = [later - start - seconds for (start, seconds), (later, _) in pairwise(own)]
        assert min(gaps) >= -1e-6
        weights = sorted(
            times.weight_gradient[stage] for stage in range(times.stages) if placement[stage] == rank
        )
        assert max(gaps) >= weights[-1] - 1e-6  # and each W has a gap


@pytest.mark.parametrize(("ranks", "published"), [(4, 2), (6, 3), (8, 4), (16, 6)])
def test_equal_durations_give_what_v_min_holds(ranks: int, published: int) -> None:
    # ⌊(p + 4) / 3⌋ microbatches through both stages (Qi et al. 2024, §3.3).
    assert published == (ranks + 4) // 3
    pattern = find_pattern(StageTimes.uniform(stages=2 * ranks), ranks)
    assert pattern is not None
    way = pattern.starts[-1] + 1 + 1 - pattern.starts[0]  # to the end of the W that follows
    assert way / pattern.period / 2 <= published + 1


def test_nothing_that_takes_time_has_no_pattern() -> None:
    times = StageTimes.uniform(stages=4, forward=0.0, input_gradient=0.0, weight_gradient=0.0)
    assert find_pattern(times, 2) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("times", [(1.0, 1.2, 0.8), (1.3, 1.0, 0.7), (1.0, 2.0, 1.0)])
def test_a_further_microbatch_takes_a_period(times: tuple[float, float, float], share: float) -> None:
    ranks, limit = 8, 8.0
    forward, inputs, weights = times
    cycles = []
    for microbatches in (40, 64):
        problem = Problem(
            ranks=ranks,
            microbatches=microbatches,
            memory_limit=limit,
            times_of=lambda placement: StageTimes.uniform(
                stages=len(placement),
                chunks=2,
                forward=forward,
                input_gradient=inputs,
                weight_gradient=weights,
            ),
        )
        schedule = Patterned(share)(Published(problem))
        assert schedule is not None
        check(schedule)
        assert max(peak_activations(schedule)) <= limit
        cycles.append(simulate(schedule, problem.times_of(schedule.placement)).cycle)
    assert cycles[1] - cycles[0] <= 24 * sum(times) * 1.01
