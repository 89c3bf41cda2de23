"""Time of collectives: one tensor, one group shape, all groups at once.

    one after the other     ┌ collective ┬ collective ┬ …        what the links give
    in the middle of work   ┌ product ┬ collective ┬ product ┬ collective ┬ …     (on processors)
    the work alone          ┌ product ┬ product ┬ …

The second less the third is what a collective costs a step: ranks come to it at different times, out of other
work, and where they share processors others compute while they wait.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from runtime.bench.points import CollectivePoint
from runtime.bench.ranks import Place
from runtime.bench.stopwatch import Lap, stopwatch

ELEMENT_BYTES = 4
SAMPLE_SECONDS = 0.004  # one sample repeats the operation for about this long
BUSY_SAMPLE_SECONDS = 0.06  # more ranks than processors take turns of milliseconds
MOST_REPEATS = 64
MOST_SAMPLES = 200
WARM_UP = 2
PRODUCT_SIDE = 512  # of the product between two collectives: a few milliseconds, as between two of a layer


class Groups:
    """The process groups of all shapes, each made once, by all ranks in the same order."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._made: dict[tuple[int, int, int], dist.ProcessGroup | None] = {}

    def group(self, point: CollectivePoint) -> dist.ProcessGroup | None:
        """Return this rank's group of the shape, or None when it is in none. Every rank must call it."""
        shape = (point.ranks, point.groups, point.stride)
        if shape not in self._made:
            mine = None
            for members in sorted({point.members(rank) for rank in range(self._place.ranks)} - {()}):
                group = dist.new_group(list(members))
                if self._place.rank in members:
                    mine = group
            self._made[shape] = mine
        return self._made[shape]


def sample_collective(
    point: CollectivePoint, place: Place, groups: Groups, *, window_seconds: float, least: int
) -> dict[str, list[Lap]]:
    """Measure one collective for about `window_seconds`; return laps of the one operation named "seconds".

    On processors laps of "product" and "product_and_collective" come with them. The number of repeats is
    agreed from the slowest rank's warm-up, so that all ranks make the same calls.
    """
    run = _operation(point, place, groups.group(point))
    trips = 2 if point.operation == "send_recv" else 1  # there and back
    once = _slowest_seconds(run, place)
    busy: dict[str, list[Lap]] = {}
    if place.device.type == "cpu" and point.operation != "send_recv":
        window_seconds /= 2
        busy = _sample_busy(run, place, once=once, window_seconds=window_seconds, least=least)
    repeats = min(MOST_REPEATS, max(1, round(SAMPLE_SECONDS / once)))
    samples = max(least, min(MOST_SAMPLES, round(window_seconds / (once * repeats))))
    watch = stopwatch(place.device)
    laps: list[Lap] = []
    for _ in range(samples):
        dist.barrier()
        watch.start()
        for _ in range(repeats):
            run()
        watch.lap("seconds")
        total, share = watch.read()["seconds"], 1.0 / (repeats * trips)
        cpu = None if total.cpu_seconds is None else total.cpu_seconds * share
        laps.append(Lap(total.seconds * share, cpu))
    return {"seconds": laps, **busy} if place.rank in _members(point, place) else {}


def _sample_busy(
    run: Callable[[], None], place: Place, *, once: float, window_seconds: float, least: int
) -> dict[str, list[Lap]]:
    """Measure products with and without the collective after each, in turn; all ranks end a lap together."""
    left, right = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE)
    out = torch.empty_like(left)

    def product() -> None:
        torch.mm(left, right, out=out)

    def product_and_collective() -> None:
        product()
        run()

    both = 2 * _slowest_seconds(product, place) + once
    repeats = min(MOST_REPEATS, max(2, round(BUSY_SAMPLE_SECONDS / both)))
    samples = max(least, min(MOST_SAMPLES, round(window_seconds / (both * repeats))))
    watch = stopwatch(place.device)
    laps: dict[str, list[Lap]] = {}
    for _ in range(samples):
        for work in (product, product_and_collective):
            dist.barrier()
            watch.start()
            for _ in range(repeats):
                work()
            dist.barrier()
            watch.lap(work.__name__)
        for name, lap in watch.read().items():
            laps.setdefault(name, []).append(Lap(lap.seconds / repeats, None))
    return laps


def _members(point: CollectivePoint, place: Place) -> tuple[int, ...]:
    return point.members(place.rank)


def _slowest_seconds(run: Callable[[], None], place: Place) -> float:
    run()
    dist.barrier()
    watch = stopwatch(place.device)
    watch.start()
    for _ in range(WARM_UP):
        run()
    watch.lap("once")
    slowest = torch.tensor([watch.read()["once"].seconds / WARM_UP], device=place.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return max(float(slowest), 1e-6)


def _operation(point: CollectivePoint, place: Place, group: dist.ProcessGroup | None) -> Callable[[], None]:
    """Return a call that does the operation once and waits for it; nothing for a rank outside the groups."""
    members = _members(point, place)
    if not members:
        return _nothing
    elements = max(1, point.message_bytes // ELEMENT_BYTES)
    tensor = torch.zeros(elements, device=place.device)
    if point.operation == "all_reduce":
        return lambda: _done(dist.all_reduce(tensor, group=group))
    if point.operation == "all_gather":
        gathered = torch.zeros(elements * point.ranks, device=place.device)
        return lambda: _done(_all_gather(gathered, tensor, group=group))
    if point.operation == "reduce_scatter":
        whole = torch.zeros(-(-elements // point.ranks) * point.ranks, device=place.device)
        part = torch.zeros(whole.numel() // point.ranks, device=place.device)
        return lambda: _done(_reduce_scatter(part, whole, group=group))
    peer, first = members[1 - members.index(place.rank)], members[0] == place.rank

    def there_and_back() -> None:
        if first:
            dist.send(tensor, peer, group=group)
            dist.recv(tensor, peer, group=group)
        else:
            dist.recv(tensor, peer, group=group)
            dist.send(tensor, peer, group=group)

    return there_and_back


def _nothing() -> None:
    return None


def _done(work: object) -> None:
    """Synchronous collectives return nothing that must be waited for."""


# torch 2.13 renamed both and warns about the old names.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
