"""Layers → stages: the contiguous split with the least slowest rank, found exactly.

The blocks of a transformer are alike, the ends are not: the first stage adds the embedding, the last one the
head and the loss, and under 1F1B the first ranks hold more microbatches than the last. So what a rank pays
for n layers is a table of its own, `seconds[rank, n]`, infinite where n layers do not fit its memory:

    rank        0          1          2          3
    n = 3    E+3b         3b         3b       3b+H     ← equal split: rank 3 is slowest
    choose      3          3          3          2     …one layer less where the head is

The dynamic programme goes over the ranks (where more layers never take less time, the least slowest rank is
found by halving instead):  best(r, n) = min over k of max(best(r − 1, n − k), seconds[r, k]).
Among splits with the same slowest rank the second pass takes the least total time (the least recomputation),
then the most even one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


def balance(seconds: Seconds, layers: int) -> tuple[int, ...] | None:
    """Return the layers of every rank, or None when no split fits.

    Args:
        seconds: [ranks, layers + 1], the time of rank r with n layers; infinite where that does not fit.
        layers: how many to place.
    """
    slowest = _least_threshold(seconds, layers) if _monotone(seconds) else _least_slowest(seconds, layers)
    if not np.isfinite(slowest):
        return None
    allowed = np.where(seconds <= slowest * (1 + 1e-12), seconds, np.inf)
    counts = np.arange(layers + 1, dtype=np.float64)
    # The evenness term only breaks ties: over all ranks it stays below 1e-9 of the slowest rank's time.
    evenness = slowest * 1e-9 / max(1, layers * layers) * counts * counts
    return _least_total(allowed + evenness, layers)


def _monotone(seconds: Seconds) -> bool:
    """Whether more layers never take less time, on any rank."""
    return bool((seconds[:, 1:] >= seconds[:, :-1]).all())


def _least_threshold(seconds: Seconds, layers: int) -> float:
    """Return the least time within which the ranks together hold all layers, by halving the sorted times."""
    times = np.unique(seconds[np.isfinite(seconds)], return_counts=True)[0]

    def enough(time: float) -> bool:
        most = (seconds <= time).sum(axis=1) - 1
        return bool(most.min() >= 0 and most.sum() >= layers)

    if not len(times) or not enough(float(times[-1])):
        return float("inf")
    low, high = 0, len(times) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(float(times[middle])) else (middle + 1, high)
    return float(times[low])


def _sums(layers: int) -> NDArray[np.int64]:
    """Indices [n, k] of n − k, with n − k < 0 sent to the sentinel at layers + 1."""
    n = np.arange(layers + 1)
    rest = n[:, None] - n[None, :]
    return np.where(rest >= 0, rest, layers + 1)


def _least_slowest(seconds: Seconds, layers: int) -> float:
    rest = _sums(layers)
    best = np.append(seconds[0], np.inf)
    for row in seconds[1:]:
        best = np.append(np.maximum(best[rest], row[None, :]).min(axis=1), np.inf)
    return float(best[layers])


def _least_total(seconds: Seconds, layers: int) -> tuple[int, ...]:
    rest = _sums(layers)
    best = np.append(seconds[0], np.inf)
    choices = []
    for row in seconds[1:]:
        total = best[rest] + row[None, :]
        choice = total.argmin(axis=1)
        choices.append(choice)
        best = np.append(np.take_along_axis(total, choice[:, None], axis=1)[:, 0], np.inf)
    counts, left = [], layers
    for choice in reversed(choices):
        counts.append(int(choice[left]))
        left -= counts[-1]
    counts.append(left)
    return tuple(reversed(counts))


def spread(counts: Sequence[int], placement: Sequence[int]) -> tuple[int, ...]:
    """Split every rank's layers over its stages: as evenly as possible, the outer stages the lighter ones.

    The first and the last stage of the model already carry the embedding and the head.

    Args:
        counts: layers of every rank.
        placement: stage → rank.
    """
    stages = len(placement)
    result = [0] * stages
    for rank, count in enumerate(counts):
        own = [stage for stage in range(stages) if placement[stage] == rank]
        base, extra = divmod(count, len(own))
        # Inner stages take the remainder first: those farthest from either end of the model.
        inner = sorted(own, key=lambda stage: (-min(stage, stages - 1 - stage), stage))
        for stage in own:
            result[stage] = base
        for stage in inner[:extra]:
            result[stage] += 1
    return tuple(result)
