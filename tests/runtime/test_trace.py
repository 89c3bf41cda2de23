"""The measured timeline: nothing of a step is lost, and the trace shows what was recorded."""

from __future__ import annotations

import pytest

from planner.schedules import Kind, LoweredAction
from runtime.recorder import Recorder
from runtime.trace import cells, chrome_trace, rank_times


def recorded():
    """A rank that computes F for 2 s, waits 3 s within B and computes 4 s, and reduces for 1 s."""
    ticks = iter([0.0, 10.0, 10.0, 12.0, 12.5, 15.5, 19.5, 20.0, 21.0, 21.0])
    recorder = Recorder(clock=lambda: next(ticks))
    recorder._clock()
    recorder.begin_step(1)
    recorder.begin(LoweredAction(Kind.F, 0, 0))
    recorder.end()
    recorder.begin(LoweredAction(Kind.B, 0, 0))
    recorder.waits()
    recorder.waited()
    recorder.end()
    with recorder.phase("gradients", waits=True):
        pass
    return recorder.spans


def test_busy_wait_and_idle_are_the_step():
    times = rank_times(recorded(), 12.0)
    assert (times.forward, times.backward, times.gradients) == (2.0, 4.0, 1.0)
    assert (times.busy, times.wait, times.idle) == (6.0, 4.0, 2.0)
    assert times.busy + times.wait + times.idle == times.step
    assert times.span == 9.5


def test_the_trace_has_one_event_for_every_wait_and_every_cell():
    timeline = cells(recorded(), rank=3, origin=10.0)
    assert [cell.name for cell in timeline] == ["0F0", "0B0", "gradients"]
    events = [event for event in chrome_trace(timeline, "run")["traceEvents"] if event["ph"] == "X"]
    shown = [(event["name"], event["tid"], event["ts"], event["dur"]) for event in events]
    assert shown == [
        ("0F0", 3, 0.0, 2e6),
        ("wait for 0B0", 3, 2.5e6, 3e6),
        ("0B0", 3, 5.5e6, 4e6),
        ("wait for gradients", 3, 10e6, pytest.approx(1e6)),
    ]
