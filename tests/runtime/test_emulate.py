"""Emulated stages: the executor's timeline follows the simulator's."""

from __future__ import annotations

import pytest

from planner.emulation import emulate, emulation_request
from planner.schedules import StageTimes, build
from profiles.errors import RunError
from runtime.emulate import run_emulated, summary


def times_of(schedule, **fields):
    seconds = {"forward": 0.02, "input_gradient": 0.03, "weight_gradient": 0.01}
    return StageTimes.uniform(stages=schedule.stages, chunks=schedule.chunks, **(seconds | fields))


def measure(run_ranks, schedule, times, repeats):
    """`emulate` without a process of its own."""
    request = emulation_request(schedule, times, repeats=repeats)
    return summary(request, schedule, run_ranks(schedule.ranks, run_emulated, schedule, request))


@pytest.mark.parametrize("name", ["1f1b", "zb-v", "pipedream"])
def test_a_measurement_is_complete_and_never_faster_than_the_simulation(run_ranks, name):
    schedule = build(name, ranks=2, microbatches=3)
    measured = measure(run_ranks, schedule, times_of(schedule), repeats=2)
    assert measured.schedule == name
    assert measured.cycle >= measured.simulated_cycle * 0.999
    assert len(measured.samples) == 2
    cells = {(c.rank, c.action, c.stage, c.microbatch) for c in measured.actions}
    expected = {
        (rank, kind.name, stage, microbatch)
        for rank, actions in enumerate(schedule.actions)
        for kind, stage, microbatch in actions
    }
    assert cells == expected
    for row in measured.ranks:
        assert row.span >= row.simulated_span * 0.999
        assert row.busy + row.wait == pytest.approx(row.span, rel=0.05)


def test_a_slow_interconnect_takes_its_time(run_ranks):
    schedule = build("1f1b", ranks=2, microbatches=2)
    slow = measure(run_ranks, schedule, times_of(schedule, latency=0.05, wire=0.1), repeats=1)
    assert slow.cycle >= slow.simulated_cycle * 0.999
    assert slow.simulated_cycle > 0.4


def test_as_a_process():
    schedule = build("gpipe", ranks=2, microbatches=2)
    measured = emulate(schedule, times_of(schedule), repeats=1)
    assert measured.error >= -0.001
    assert len(measured.ranks) == 2


def test_a_schedule_that_cannot_finish_is_refused_before_any_rank_starts(monkeypatch):
    schedule = build("gpipe", ranks=2, microbatches=2)
    from planner import emulation

    request = emulation_request(schedule, times_of(schedule))
    broken = request.model_copy(update={"schedule": request.schedule | {"actions": []}})
    monkeypatch.setattr(emulation, "emulation_request", lambda *args, **kwargs: broken)
    with pytest.raises(RunError, match="error"):
        emulate(schedule, times_of(schedule))
