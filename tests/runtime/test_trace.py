"""The measured timeline: nothing of a step is lost, and the trace shows what was recorded."""

from __future__ import annotations

import json

import pytest

from planner.layout import Layout
from planner.layout_schedule import schedule_of
from planner.schedules import Kind, LoweredAction, StepTimeline, chrome_trace, read_chrome_trace
from planner.schedules.step import transfers
from profiles.model import ModelSpec
from runtime.recorder import Recorder
from runtime.trace import cells, rank_times


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


def test_waiting_for_others_norms_is_not_the_optimizers():
    ticks = iter([0.0, 0.0, 1.0, 1.0, 6.0, 7.0, 7.0, 9.0])
    recorder = Recorder(clock=lambda: next(ticks))
    with recorder.phase("norm"):
        pass
    with recorder.phase("norm"):
        recorder.waits()
        recorder.waited()
    with recorder.phase("optimizer"):
        pass
    times = rank_times(recorder.spans, 9.0)
    assert (times.optimizer, times.wait) == (1.0 + 1.0 + 2.0, 5.0)


def test_the_trace_has_one_event_for_every_wait_and_every_cell():
    timeline = StepTimeline(title="run", cells=tuple(cells(recorded(), rank=3, origin=10.0)), seconds=12.0)
    assert [cell.name for cell in timeline.cells] == ["0F0", "0B0", "gradients"]
    events = [event for event in chrome_trace([timeline])["traceEvents"] if event["ph"] == "X"]
    shown = [(event["name"], event["tid"], event["ts"], event["dur"]) for event in events]
    assert shown == [
        ("0F0", 3, 0.0, 2e6),
        ("wait for 0B0", 3, 2.5e6, 3e6),
        ("0B0", 3, 5.5e6, 4e6),
        ("wait for gradients", 3, 10e6, pytest.approx(1e6)),
    ]


def covered(events, origin, seconds):
    """Seconds of [origin, origin + seconds] that events cover, and how far they lie over each other."""
    inside = at = overlap = 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        start, end = event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6
        assert origin - 1e-6 <= start <= end <= origin + seconds + 1e-6
        overlap = max(overlap, at - start)
        inside += max(0.0, end - max(start, at))
        at = max(at, end)
    return inside, overlap


@pytest.mark.parametrize(
    "fields",
    [
        {"pp": 2, "chunks": 2, "schedule": "zb-v"},
        {"pp": 2, "schedule": "pipedream", "flush_every": 2},
    ],
)
def test_busy_wait_and_idle_are_the_step_of_a_real_run(make_run, train_ranks, fields):
    """From the trace alone: what computes, what waits and what is left add up to the time of the step."""
    model = ModelSpec(layers=4, hidden=16, heads=2, vocab=256, seq_len=16, tied_embeddings=False)
    run = make_run(Layout(global_batch=4, precision="fp32", **fields), steps=4, trace_step=4, model=model)
    assert train_ranks(run, 2).wait() == [0, 0]
    text = (run / "trace.json").read_text()
    timeline = read_chrome_trace(text, name="trace.json")
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert timeline.steps == (2 if "flush_every" in fields else 1)
    assert timeline.shares[0].step == pytest.approx(metrics[-1]["step_seconds"] * timeline.steps)
    assert timeline.seconds == max(begin + seconds for begin, seconds in timeline.steps_of)
    events = [event for event in json.loads(text)["traceEvents"] if event["ph"] == "X"]
    for share in timeline.shares:
        own = [event for event in events if event["tid"] == share.rank]
        waits = [event["cat"] == "wait" for event in own]
        assert share.busy == pytest.approx(
            sum(e["dur"] for e, wait in zip(own, waits, strict=True) if not wait) / 1e6
        )
        assert share.wait == pytest.approx(
            sum(e["dur"] for e, wait in zip(own, waits, strict=True) if wait) / 1e6
        )
        inside, overlap = covered(own, *timeline.steps_of[share.rank])
        assert overlap < 1e-6
        assert inside + share.idle == pytest.approx(share.step)
        assert share.busy + share.wait + share.idle == pytest.approx(share.step)
        assert share.busy > 0
        assert share.wait > 0
        assert share.idle >= 0
    ran = {(cell.kind, cell.stage, cell.microbatch) for cell in timeline.cells}
    schedule = schedule_of(Layout(global_batch=4, **fields), steps=timeline.steps)
    assert {tuple(action) for row in schedule.actions for action in row} <= {
        (Kind[kind], stage, microbatch) for kind, stage, microbatch in ran if kind in Kind.__members__
    }
    arrows = [event for event in json.loads(text)["traceEvents"] if event["ph"] in "sf"]
    assert len(arrows) == 2 * len(transfers(timeline.cells)) > 0
    # The arrow of a transfer never goes back in time: both ranks' clocks are those of one machine.
    for source, target in transfers(timeline.cells):
        assert source.start < target.end
