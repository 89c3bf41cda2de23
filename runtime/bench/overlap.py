"""How much a collective slows computation that runs beside it, and the computation the collective.

    alone      forward and backward of a block            the messages, one after the other
    beside     messages started ─ forward ─ backward ─ … ─ wait until the last message has arrived

The messages together last at least as long as the computation does alone, so all of it has company.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from runtime.bench.layers import LayerBench
from runtime.bench.points import LayerPoint, OverlapPoint
from runtime.bench.ranks import Place
from runtime.bench.stopwatch import Lap, stopwatch

ELEMENT_BYTES = 4
MOST_MESSAGES = 64


def sample_overlap(
    point: OverlapPoint, layers: LayerBench, place: Place, *, window_seconds: float, least: int
) -> dict[str, list[Lap]]:
    """Measure the block alone, the messages alone, and both at once, among all ranks.

    Returns laps named `compute_alone`, `messages_alone`, `compute_beside` and `messages_beside`; nothing for
    a single rank.
    """
    if place.ranks < 2:
        return {}
    block = LayerPoint(component="block", microbatch=point.microbatch, tp=1, precision=point.precision)
    compute = layers.whole(block)
    tensor = torch.zeros(max(1, point.message_bytes // ELEMENT_BYTES), device=place.device)
    compute()
    dist.all_reduce(tensor)
    begin = time.perf_counter()
    compute()
    _drain(place)
    middle = time.perf_counter()
    dist.all_reduce(tensor)
    _drain(place)
    once, message = _longest([middle - begin, time.perf_counter() - middle], place)
    count = min(MOST_MESSAGES, max(1, math.ceil(1.2 * once / message)))
    samples = max(least, min(50, round(window_seconds / (2 * once + 2 * count * message))))
    laps: dict[str, list[Lap]] = {}
    for _ in range(samples):
        _sample(laps, compute, tensor, count, place)
    return laps


def _sample(
    laps: dict[str, list[Lap]], compute: Callable[[], None], tensor: torch.Tensor, count: int, place: Place
) -> None:
    watch = stopwatch(place.device)
    dist.barrier()
    watch.start()
    compute()
    watch.lap("compute_alone")
    dist.barrier()
    watch.start()
    for work in [dist.all_reduce(tensor, async_op=True) for _ in range(count)]:
        _wait(work)
    watch.lap("messages_alone")
    dist.barrier()
    both = stopwatch(place.device)
    both.start()
    works = [dist.all_reduce(tensor, async_op=True) for _ in range(count)]
    watch.start()
    compute()
    watch.lap("compute_beside")
    for work in works:
        _wait(work)
    both.lap("messages_beside")
    for name, lap in (watch.read() | both.read()).items():
        laps.setdefault(name, []).append(lap)


def _wait(work: dist.Work | None) -> None:
    assert work is not None
    work.wait()


def _drain(place: Place) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)


def _longest(seconds: list[float], place: Place) -> tuple[float, float]:
    """Return the longest of each over all ranks, so that all make the same calls."""
    slowest = torch.tensor(seconds, device=place.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    compute, message = slowest.tolist()
    return max(compute, 1e-6), max(message, 1e-6)
