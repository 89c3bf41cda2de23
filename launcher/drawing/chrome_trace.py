"""A timeline as Chrome trace events, which Perfetto and chrome://tracing open."""

from __future__ import annotations

from typing import Any

from planner.schedules import Kind, Timeline


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Return one row per rank, and an arrow for every transfer; seconds become microseconds."""
    schedule = timeline.schedule
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "args": {"name": f"{schedule.name}, simulated"}}
    ]
    ends: dict[tuple[bool, int, int], float] = {}
    for rank, actions in enumerate(schedule.actions):
        events.append(
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": rank, "args": {"name": f"rank {rank}"}}
        )
        for action, start, end in zip(actions, timeline.starts[rank], timeline.ends[rank], strict=True):
            events.append(
                {
                    "name": str(action),
                    "cat": action.kind.name,
                    "ph": "X",
                    "pid": 0,
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
    return {"traceEvents": events + _arrows(timeline, ends), "displayTimeUnit": "ms"}


def _arrows(timeline: Timeline, ends: dict[tuple[bool, int, int], float]) -> list[dict[str, Any]]:
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
            common = {"name": "activations" if forward else "gradients", "cat": "transfer", "pid": 0}
            common["id"] = len(arrows) // 2
            left = ends[forward, source, action.microbatch]
            # A flow binds to the slice that encloses its time, so it leaves just before the producer's end.
            arrows.append({**common, "ph": "s", "tid": schedule.placement[source], "ts": left * 1e6 - 0.001})
            arrows.append({**common, "ph": "f", "bp": "e", "tid": rank, "ts": start * 1e6})
    return arrows
