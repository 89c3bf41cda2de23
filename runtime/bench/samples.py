"""Samples of one phase, and what is reported of them: the median and the distance between the quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from runtime.bench.stopwatch import Lap


class Summary(NamedTuple):
    """Median, quartile spread, number of samples and median processor time."""

    seconds: float
    spread_seconds: float
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
        samples=len(wall),
        cpu_seconds=statistics.median(cpu) if cpu else None,
    )
