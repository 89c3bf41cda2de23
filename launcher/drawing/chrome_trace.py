"""A timeline as Chrome trace events, which Perfetto and chrome://tracing open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.schedules import Kind, Timeline


def chrome_trace(timelines: Sequence[Timeline]) -> dict[str, Any]:
    """Return one group of rows per timeline, one row per rank, and an arrow for every transfer.

    Seconds become microseconds.
    """
    events: list[dict[str, Any]] = []
    for group, timeline in enumerate(timelines):
        events += _events(timeline, group)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _events(timeline: Timeline, group: int) -> list[dict[str, Any]]:
    schedule = timeline.schedule
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": group, "args": {"name": schedule.name}}
    ]
    ends: dict[tuple[bool, int, int], float] = {}
    for rank, actions in enumerate(schedule.actions):
        events.append(
            {"name": "thread_name", "ph": "M", "pid": group, "tid": rank, "args": {"name": f"rank {rank}"}}
        )
        for action, start, end in zip(actions, timeline.starts[rank], timeline.ends[rank], strict=True):
            events.append(
                {
                    "name": str(action),
                    "cat": action.kind.name,
                    "ph": "X",
                    "pid": group,
                    "tid": rank,
                    "ts": start * 1e6,
                    "dur": (end - start) * 1e6,
                    "args": {
                        "stage": action.stage,
                        "microbatch": action.microbatch,
                        "kind": action.kind.name,
                    },
                }
            )
            if action.kind in (Kind.F, Kind.B, Kind.I):
                ends[action.kind == Kind.F, action.stage, action.microbatch] = end
    return events + _arrows(timeline, ends, group)


def _arrows(timeline: Timeline, ends: dict[tuple[bool, int, int], float], group: int) -> list[dict[str, Any]]:
    schedule = timeline.schedule
    arrows: list[dict[str, Any]] = []
    for rank, actions in enumerate(schedule.actions):
        for action, start in zip(actions, timeline.starts[rank], strict=True):
            forward = action.kind == Kind.F
            source = action.stage - 1 if forward else action.stage + 1
            if action.kind not in (Kind.F, Kind.B, Kind.I) or not 0 <= source < schedule.stages:
                continue
            if schedule.placement[source] == rank:
                continue
            common: dict[str, Any] = {
                "name": "activations" if forward else "gradients",
                "cat": "transfer",
                "pid": group,
            }
            common["id"] = f"{group}.{len(arrows) // 2}"
            left = ends[forward, source, action.microbatch]
            # A flow binds to the slice that encloses its time, so it leaves just before the producer's end.
            arrows.append({**common, "ph": "s", "tid": schedule.placement[source], "ts": left * 1e6 - 0.001})
            arrows.append({**common, "ph": "f", "bp": "e", "tid": rank, "ts": start * 1e6})
    return arrows
