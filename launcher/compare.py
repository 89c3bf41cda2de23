"""Predicted against measured: one row a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from planner.estimate import Estimate, TimeBreakdown
from profiles.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number as predicted and as measured; either may be unknown."""

    name: str
    predicted: float | None
    measured: float | None
    write: Callable[[float], str]
    part: bool = False  # a part of the row above, indented below it
    of_part: bool = False  # a part of such a part
    comparable: bool = True  # False: the two do not count the same

    @property
    def error(self) -> float | None:
        """(predicted − measured) / measured; None where they do not compare, or the measured is zero."""
        if self.predicted is None or not self.measured or not self.comparable:
            return None
        return (self.predicted - self.measured) / self.measured

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, predicted, measured and error as text."""
        shown = [self.write(value) if value is not None else "–" for value in (self.predicted, self.measured)]
        error = f"{self.error:+.1%}" if self.error is not None else ""
        return ("  " * (self.part + self.of_part) + self.name, shown[0], shown[1], error)

    def data(self) -> dict[str, Any]:
        """Return the row for machines."""
        return {
            "name": self.name,
            "predicted": self.predicted,
            "measured": self.measured,
            "error": self.error,
        }


def compare(predicted: Estimate | None, measured: Estimate | None) -> tuple[Row, ...]:
    """Return the rows of a report; parts that are zero on both sides are left out."""
    return tuple(_rows(predicted, measured))


WITH_TP = ("forward", "backward", "recompute", "tp_comm")


def _time_parts(predicted: TimeBreakdown | None, measured: TimeBreakdown | None) -> Iterator[Row]:
    """Yield the parts of a step.

    A run measures the messages of tensor parallelism inside the forward and backward that wait for them. So
    where there are some, the sum is compared, and its parts are shown.
    """
    inside = bool(predicted and predicted.tp_comm and measured and not measured.tp_comm)
    if predicted and measured and inside:
        sums = [sum(getattr(time, part) for part in WITH_TP) for time in (predicted, measured)]
        yield Row(
            name="compute and tp_comm", predicted=sums[0], measured=sums[1], write=format_seconds, part=True
        )
    for part in TimeBreakdown.model_fields:
        before = getattr(predicted, part) if predicted else None
        after = getattr(measured, part) if measured else None
        if before or after:
            split = inside and part in WITH_TP
            after = None if split and part == "tp_comm" else after
            yield Row(
                name=part,
                predicted=before,
                measured=after,
                write=format_seconds,
                part=True,
                of_part=split,
                comparable=not split,
            )


def _rows(predicted: Estimate | None, measured: Estimate | None) -> Iterator[Row]:
    def row(name: str, get: Callable[[Estimate], float | None], write: Callable[[float], str]) -> Row:
        return Row(
            name=name,
            predicted=get(predicted) if predicted else None,
            measured=get(measured) if measured else None,
            write=write,
        )

    yield row("step time", lambda e: e.step_seconds, format_seconds)
    yield from _time_parts(predicted.time if predicted else None, measured.time if measured else None)
    yield row("tokens per second", lambda e: e.tokens_per_second, format_count)
    yield row(
        "model FLOP/s a device",
        lambda e: e.model_flops_per_device,
        lambda value: format_count(value, "FLOP/s"),
    )
    yield row("MFU", lambda e: e.mfu, lambda value: f"{value:.1%}")
    yield row("bubble", lambda e: e.bubble_fraction, lambda value: f"{value:.1%}")
    yield row("peak memory", lambda e: e.memory.peak_bytes, format_bytes)
    stages_before = {entry.rank: entry.total for entry in predicted.memory.per_stage} if predicted else {}
    stages_after = {entry.rank: entry.total for entry in measured.memory.per_stage} if measured else {}
    for rank in sorted({*stages_before, *stages_after}):
        yield Row(
            name=f"pipeline rank {rank}",
            predicted=stages_before.get(rank),
            measured=stages_after.get(rank),
            write=format_bytes,
            part=True,
        )
