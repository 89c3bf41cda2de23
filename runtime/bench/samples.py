"""Samples of one phase, and what is reported of them: median, distance between the quartiles, and mean.

A sample of a few milliseconds that a neighbour disturbs is an outlier, and the median leaves it out. A step
is the sum of hundreds of such phases, disturbed ones among them: its time follows from their mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from runtime.bench.stopwatch import Lap

MOST = 4.0  # medians: one stall must not become the mean of a few samples


class Summary(NamedTuple):
    """Median, quartile spread, mean, number of samples and mean processor time."""

    seconds: float
    spread_seconds: float
    mean_seconds: float
    samples: int
    cpu_seconds: float | None


def summarise(laps: Iterable[Lap]) -> Summary:
    """Summarise samples of the same phase.

    Raises:
        ValueError: without samples.
    """
    known = list(laps)
    if not known:
        raise ValueError("no samples")
    wall = [lap.seconds for lap in known]
    spread = 0.0
    if len(wall) > 1:
        low, _, high = statistics.quantiles(wall, n=4, method="inclusive")
        spread = high - low
    cpu = [lap.cpu_seconds for lap in known if lap.cpu_seconds is not None]
    return Summary(
        seconds=statistics.median(wall),
        spread_seconds=spread,
        mean_seconds=_mean(wall),
        samples=len(wall),
        cpu_seconds=_mean(cpu) if cpu else None,
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean, values far above the median brought down to `MOST` medians."""
    most = MOST * statistics.median(values)
    return statistics.fmean(min(value, most) for value in values)
