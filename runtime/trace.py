"""The measured timeline: where the time of a step went, per rank and cell.

A rank's step is what its cells computed (busy), what they waited for data (wait), and the rest (idle);
busy + wait + idle = step. Gradient reduction, clipping and the optimizer are phases after the schedule, and
cells like all others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from planner.schedules import Kind, LoweredAction
from runtime.recorder import Span

BACKWARD = (Kind.B, Kind.I, Kind.W)


class RankTimes(NamedTuple):
    """Seconds of one rank in one step."""

    forward: float
    backward: float
    gradients: float  # waiting for sums over dp and ties that the schedule did not hide
    optimizer: float  # norm, clipping, update
    span: float  # first action of the schedule to its last
    busy: float  # in cells and phases, not waiting
    wait: float  # in cells and phases, for another rank
    step: float

    @property
    def idle(self) -> float:
        """What is left of the step: busy + wait + idle = step."""
        return self.step - self.busy - self.wait

    def share(self, steps: int) -> RankTimes:
        """Return the part of one of `steps` steps that overlapped."""
        return RankTimes(*(seconds / steps for seconds in self))


def rank_times(spans: Sequence[Span], step_seconds: float) -> RankTimes:
    """Sum up one rank's spans of one step."""
    compute = [
        (span.label.kind, span)
        for span in spans
        if isinstance(span.label, LoweredAction) and span.label.kind.is_compute
    ]
    updates = [span for kind, span in compute if kind == Kind.U]
    return RankTimes(
        forward=sum(span.end - span.ready for kind, span in compute if kind == Kind.F),
        backward=sum(span.end - span.ready for kind, span in compute if kind in BACKWARD),
        gradients=_phase(spans, "gradients") + sum(span.ready - span.start for span in updates),
        optimizer=_phase(spans, "norm")
        + _phase(spans, "optimizer")
        + sum(span.end - span.ready for span in updates),
        span=max((s.end for _, s in compute), default=0.0) - min((s.ready for _, s in compute), default=0.0),
        busy=sum(span.end - span.ready for span in spans),
        wait=sum(span.ready - span.start for span in spans),
        step=step_seconds,
    )


def _phase(spans: Sequence[Span], name: str) -> float:
    return sum(span.end - span.start for span in spans if span.label == name)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One interval of a rank's timeline, in seconds from the start of the step."""

    rank: int
    name: str
    kind: str  # F, B, I, W, U, a message, or a phase
    stage: int
    microbatch: int
    start: float
    ready: float
    end: float


def cells(spans: Sequence[Span], *, rank: int, origin: float) -> list[Cell]:
    """Return the spans of one rank as cells, with times from `origin`."""
    result = []
    for label, start, ready, end in spans:
        result.append(
            Cell(
                rank=rank,
                name=str(label),
                kind=label.kind.name if isinstance(label, LoweredAction) else label,
                stage=label.stage if isinstance(label, LoweredAction) else -1,
                microbatch=label.microbatch if isinstance(label, LoweredAction) else -1,
                start=start - origin,
                ready=ready - origin,
                end=end - origin,
            )
        )
    return result


def chrome_trace(timeline: Sequence[Cell], name: str) -> dict[str, Any]:
    """Return a trace that Perfetto and chrome://tracing open: one row a pipeline rank."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": name}},
        *(
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": rank, "args": {"name": f"rank {rank}"}}
            for rank in sorted({cell.rank for cell in timeline})
        ),
    ]
    for cell in timeline:
        place = {"stage": cell.stage, "microbatch": cell.microbatch, "kind": cell.kind}
        common = {"ph": "X", "pid": 0, "tid": cell.rank}
        if cell.ready > cell.start:
            waited = {"ts": cell.start * 1e6, "dur": (cell.ready - cell.start) * 1e6}
            events.append({**common, **waited, "name": f"wait for {cell.name}", "cat": "wait", "args": place})
        if cell.end > cell.ready:
            busy = {"ts": cell.ready * 1e6, "dur": (cell.end - cell.ready) * 1e6}
            events.append({**common, **busy, "name": cell.name, "cat": cell.kind, "args": place})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(path: Path, timeline: Sequence[Cell], name: str) -> None:
    """Write the trace as JSON."""
    path.write_text(json.dumps(chrome_trace(timeline, name)), encoding="utf-8")
