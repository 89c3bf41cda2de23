"""A simulated step as cells with waits: nothing is lost, and a trace reads back as what was written."""

from __future__ import annotations

import json

import pytest

from planner.schedules import (
    FAMILIES,
    StageTimes,
    StepTimeline,
    build,
    chrome_trace,
    read_chrome_trace,
    simulate,
    simulated_step,
    step_cells,
)
from planner.schedules.step import transfers
from profiles.errors import ConfigError


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_shares_are_those_of_the_timeline(name: str) -> None:
    schedule = build(name, ranks=3, microbatches=5)
    timeline = simulate(
        schedule, StageTimes.uniform(stages=schedule.stages, chunks=schedule.chunks, latency=0.1)
    )
    step = StepTimeline(title=name, cells=tuple(step_cells(timeline, waits=True)), seconds=timeline.makespan)
    assert step.ranks == 3
    for share, busy, ends in zip(step.shares, timeline.busy, timeline.ends, strict=True):
        assert share.busy == pytest.approx(busy)
        assert share.idle == pytest.approx(timeline.makespan - ends[-1], abs=1e-9)
        assert share.busy + share.wait + share.idle == pytest.approx(timeline.makespan)


def test_a_trace_reads_back() -> None:
    schedule = build("zb-v", ranks=2, microbatches=3)
    timeline = simulate(schedule, StageTimes.uniform(stages=4, chunks=2, latency=0.25))
    step = StepTimeline(title="a <b>", cells=tuple(step_cells(timeline, waits=True)), seconds=30.0, steps=2)
    again = read_chrome_trace(json.dumps(chrome_trace([step, step])), name="x")
    assert (again.title, again.seconds, again.steps, again.chunks) == (
        "a <b>",
        30.0,
        2,
        {0: 0, 1: 0, 2: 1, 3: 1},
    )
    assert len(again.cells) == len(step.cells)
    for found, cell in zip(sorted(again.cells), sorted(step.cells), strict=True):
        assert found[:5] == cell[:5]
        assert found[5:] == pytest.approx(cell[5:])


def test_transfers_are_the_messages_between_ranks() -> None:
    schedule = build("zb-v", ranks=2, microbatches=3)
    step = simulated_step(simulate(schedule, StageTimes.uniform(stages=4, chunks=2)))
    pairs = transfers(step.cells)
    # Boundaries 0|1 and 2|3 lie between ranks, the turn 1|2 does not; both directions, three microbatches.
    assert len(pairs) == 2 * 2 * 3
    assert {(source.rank, target.rank) for source, target in pairs} == {(0, 1), (1, 0)}
    assert all(source.end <= target.ready for source, target in pairs)


@pytest.mark.parametrize("text", ["", "[]", '{"traceEvents": []}', '{"otherData": {"timelines": [{}]}}'])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trace\.json: not a trace of a step"):
        read_chrome_trace(text, name="trace.json")
