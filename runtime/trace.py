"""The measured timeline: where the time of a step went, per rank and cell.

A rank's step is what its cells computed (busy), what they waited for data (wait), and the rest (idle);
busy + wait + idle = step. Gradient reduction, clipping and the optimizer are phases after the schedule, and
cells like all others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from planner.schedules import Cell, Kind, LoweredAction, StepTimeline, chrome_trace
from profiles.documents import write_text
from runtime.recorder import Span

BACKWARD = (Kind.B, Kind.I, Kind.W)


class RankTimes(NamedTuple):
    """Seconds of one rank in one step."""

    forward: float
    backward: float
    gradients: float  # waiting for sums over dp and ties that the schedule did not hide
    optimizer: float  # norm, clipping, update; without waiting for other ranks' norms
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
        optimizer=sum(span.end - span.ready for span in spans if span.label in {"norm", "optimizer"})
        + sum(span.end - span.ready for span in updates),
        span=max((s.end for _, s in compute), default=0.0) - min((s.ready for _, s in compute), default=0.0),
        busy=sum(span.end - span.ready for span in spans),
        wait=sum(span.ready - span.start for span in spans),
        step=step_seconds,
    )


def _phase(spans: Sequence[Span], name: str) -> float:
    return sum(span.end - span.start for span in spans if span.label == name)


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


def write_trace(path: Path, timeline: StepTimeline) -> None:
    """Write the trace as JSON, in the form of a simulated one."""
    write_text(path, json.dumps(chrome_trace([timeline])) + "\n")
