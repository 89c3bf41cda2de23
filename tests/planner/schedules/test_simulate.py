"""The simulator against closed forms, bounds and an independent computation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedules import Kind, Schedule, StageTimes, build, simulate, simulate_shared

GRID = [(p, m) for p in (1, 2, 3, 4, 8) for m in (1, 2, 3, 8, 16)]


@pytest.mark.parametrize(("p", "m"), GRID)
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_makespan_and_peak_are_the_published_ones(name: str, p: int, m: int) -> None:
    """Huang 2019 §2.3; Narayanan 2021 (2104.04473) §2.2.1: (m + p − 1)(F + B); in flight m, and p − rank."""
    timeline = simulate(build(name, ranks=p, microbatches=m), StageTimes.uniform(stages=p))
    assert timeline.makespan == (m + p - 1) * 3
    expected = [m] * p if name == "gpipe" else [min(m, p - rank) for rank in range(p)]
    assert list(timeline.peak_activations) == expected


@pytest.mark.parametrize(("p", "m"), GRID)
def test_one_rank_at_a_time(p: int, m: int) -> None:
    timeline = simulate(build("naive", ranks=p, microbatches=m), StageTimes.uniform(stages=p))
    assert timeline.makespan == m * p * 3


def fixed_point(schedule: Schedule, times: StageTimes) -> float:
    """Makespan by relaxing all constraints until nothing moves: slow, and nothing like the simulator."""
    ends: dict[tuple[Kind, int, int], float] = {}
    moved = True
    while moved:
        moved = False
        for rank, row in enumerate(schedule.actions):
            clock = 0.0
            for action in row:
                kind, stage, microbatch = action
                needs: list[tuple[Kind, int, int]] = []
                if kind == Kind.F and stage:
                    needs = [(Kind.F, stage - 1, microbatch)]
                elif kind in (Kind.B, Kind.I) and stage + 1 < schedule.stages:
                    needs = [(k, stage + 1, microbatch) for k in (Kind.B, Kind.I)]
                start = clock
                for need in needs:
                    remote = schedule.placement[need[1]] != rank
                    start = max(
                        start, ends.get(need, 0.0) + (times.latency if remote and need in ends else 0.0)
                    )
                clock = start + times.of(kind, stage)
                if ends.get((kind, stage, microbatch)) != clock:
                    ends[kind, stage, microbatch] = clock
                    moved = True
    return max(ends.values())


positive = st.floats(0.1, 10.0)


@settings(deadline=None)
@given(data=st.data(), name=st.sampled_from(["gpipe", "1f1b"]), p=st.integers(1, 5), m=st.integers(1, 8))
def test_uneven_stages_agree_with_the_fixed_point_and_both_lower_bounds(
    data: st.DataObject, name: str, p: int, m: int
) -> None:
    rows = [tuple(data.draw(st.lists(positive, min_size=p, max_size=p))) for _ in range(3)]
    latency = data.draw(st.floats(0.0, 3.0))
    times = StageTimes(forward=rows[0], input_gradient=rows[1], weight_gradient=rows[2], latency=latency)
    schedule = build(name, ranks=p, microbatches=m)
    timeline = simulate(schedule, times)
    assert timeline.makespan == pytest.approx(fixed_point(schedule, times))
    busiest = max(m * (rows[0][s] + rows[1][s] + rows[2][s]) for s in range(p))
    once_through = sum(map(sum, rows)) + 2 * (p - 1) * latency
    assert timeline.makespan >= max(busiest, once_through) - 1e-9
    for busy, wait, idle in zip(timeline.busy, timeline.wait, timeline.idle, strict=True):
        assert busy + wait + idle == pytest.approx(timeline.cycle)


@settings(deadline=None)
@given(p=st.integers(1, 5), m=st.integers(1, 8), forward=positive, backward=positive)
def test_with_a_core_each_sharing_changes_nothing(p: int, m: int, forward: float, backward: float) -> None:
    times = StageTimes.uniform(stages=p, forward=forward, input_gradient=backward, weight_gradient=backward)
    schedule = build("1f1b", ranks=p, microbatches=m)
    alone = simulate(schedule, times).makespan
    assert simulate_shared(schedule, times, cores=p).makespan == pytest.approx(alone)
    work = p * m * (forward + 2 * backward)
    one_core = simulate_shared(schedule, times, cores=1).makespan
    assert one_core == pytest.approx(work), "one core is never idle while anything can run"
    two = simulate_shared(schedule, times, cores=2).makespan
    assert max(alone, work / 2) - 1e-9 <= two <= one_core + 1e-9
