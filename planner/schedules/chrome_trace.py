"""Steps as Chrome trace events, which Perfetto and chrome://tracing open, and back.

One group of rows a timeline, one row a rank: an event for what a cell computes, one before it for what it
waits, and an arrow for every transfer between ranks. Seconds become microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from planner.schedules.step import Cell, StepTimeline, transfers
from profiles.errors import ConfigError

_WAIT = "wait for "


def chrome_trace(timelines: Sequence[StepTimeline]) -> dict[str, Any]:
    """Return the trace of simulated or measured steps."""
    events = [event for group, timeline in enumerate(timelines) for event in _events(timeline, group)]
    steps = [
        {"title": t.title, "seconds": t.seconds, "steps": t.steps, "steps_of": t.steps_of} for t in timelines
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"timelines": steps}}


def _events(timeline: StepTimeline, group: int) -> Iterator[dict[str, Any]]:
    yield {"name": "process_name", "ph": "M", "pid": group, "args": {"name": timeline.title}}
    for rank in range(timeline.ranks):
        yield {"name": "thread_name", "ph": "M", "pid": group, "tid": rank, "args": {"name": f"rank {rank}"}}
    for cell in timeline.cells:
        place = {"stage": cell.stage, "microbatch": cell.microbatch, "kind": cell.kind}
        common = {"ph": "X", "pid": group, "tid": cell.rank, "args": place}
        if cell.ready > cell.start:
            waited = {"ts": cell.start * 1e6, "dur": (cell.ready - cell.start) * 1e6}
            yield {"name": _WAIT + cell.name, "cat": "wait", **common, **waited}
        if cell.end > cell.ready:
            busy = {"ts": cell.ready * 1e6, "dur": (cell.end - cell.ready) * 1e6}
            yield {"name": cell.name, "cat": cell.kind, **common, **busy}
    for number, (source, target) in enumerate(transfers(timeline.cells)):
        common = {
            "name": "activations" if source.kind == "F" else "gradients",
            "cat": "transfer",
            "pid": group,
            "id": f"{group}.{number}",
        }
        # A flow binds to the slice that encloses its time, so it leaves just before the producer's end.
        yield {**common, "ph": "s", "tid": source.rank, "ts": source.end * 1e6 - 0.001}
        yield {**common, "ph": "f", "bp": "e", "tid": target.rank, "ts": target.ready * 1e6}


def read_chrome_trace(text: str, *, name: str) -> StepTimeline:
    """Return the first timeline of a trace that `chrome_trace` made.

    Raises:
        ConfigError: when the text is no such trace.
    """
    try:
        data = json.loads(text)
        header = data["otherData"]["timelines"][0]
        events = [event for event in data["traceEvents"] if event["pid"] == 0 and event["ph"] == "X"]
        return StepTimeline(
            title=str(header["title"]),
            cells=tuple(_cells(events)),
            seconds=float(header["seconds"]),
            steps=int(header["steps"]),
            steps_of=tuple((float(begin), float(seconds)) for begin, seconds in header["steps_of"]),
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"{name}: not a trace of a step: {type(error).__name__} {error}") from None


def _cells(events: Sequence[dict[str, Any]]) -> Iterator[Cell]:
    waited: dict[int, dict[str, Any]] = {}  # rank → the wait that the next event of the rank ends
    for event in events:
        rank = int(event["tid"])
        before = waited.pop(rank, None)
        if before is not None and event["name"] != str(before["name"]).removeprefix(_WAIT):
            yield _cell(before, before["ts"] + before["dur"], 0.0, start=before["ts"])
            before = None
        if event["cat"] == "wait":
            waited[rank] = event
        else:
            start = event["ts"] if before is None else before["ts"]
            yield _cell(event, event["ts"], event["dur"], start=start)
    for event in waited.values():
        yield _cell(event, event["ts"] + event["dur"], 0.0, start=event["ts"])


def _cell(event: dict[str, Any], ready: float, busy: float, *, start: float) -> Cell:
    place = event["args"]
    return Cell(
        rank=int(event["tid"]),
        name=str(event["name"]).removeprefix(_WAIT),
        kind=str(place["kind"]),
        stage=int(place["stage"]),
        microbatch=int(place["microbatch"]),
        start=start / 1e6,
        ready=ready / 1e6,
        end=(ready + busy) / 1e6,
    )
