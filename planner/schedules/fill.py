"""Fill weight gradients into a given order of forwards and input gradients.

Input gradients feed other ranks, weight gradients feed nobody. So each rank follows its given order of F and
I as soon as data arrives, and computes its oldest waiting W whenever the next cell cannot start: because its
data is still on the way, or because an F would exceed the memory limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from planner.schedules.action import Action, Kind, Schedule, new_action
from planner.schedules.times import StageTimes

_F, _I, _W = Kind.F, Kind.I, Kind.W


def fill_weights(
    orders: Sequence[Sequence[Action]],
    *,
    name: str,
    microbatches: int,
    placement: Sequence[int],
    times: StageTimes,
    limits: Sequence[int],
    within: float = inf,
) -> Schedule | None:
    """Return the schedule of `orders` (F and I only, per rank) with every W put in.

    `limits[rank]` is the most (stage, microbatch) activations that `rank` should hold; it is exceeded only
    where the order itself leaves no choice. `times` tell which gaps there are; the result is valid under any
    times. None is returned as soon as a rank has waited so long that its span exceeds `within`.
    """
    filling = _Filling(orders, microbatches, placement, times, limits)
    waits = [within - work for work in times.work(placement, microbatches, split=True)]
    if min(waits) < 0 or not filling.run(waits):
        return None
    return Schedule(
        name=name,
        microbatches=microbatches,
        placement=tuple(placement),
        actions=tuple(map(tuple, filling.actions)),
    )


class _Cell(NamedTuple):
    """What all actions of one kind and stage share; slots are counted from the microbatch's number on."""

    seconds: float
    needs: int  # slot of another stage's data that it waits for, or −1
    gives: int  # slot of the data it produces
    delay: float  # until that arrives


class _Filling:
    """State of one pass: what each rank has listed, holds and waits for."""

    def __init__(
        self,
        orders: Sequence[Sequence[Action]],
        microbatches: int,
        placement: Sequence[int],
        times: StageTimes,
        limits: Sequence[int],
    ) -> None:
        ranks = len(orders)
        self.orders, self.limits = orders, limits
        self.cells = {kind: _cells(kind, microbatches, placement, times) for kind in (_F, _I)}
        self.weight_seconds = times.weight_gradient
        self.actions: list[list[Action]] = [[] for _ in range(ranks)]
        self.next = [0] * ranks
        self.held = [0] * ranks
        self.weights: list[deque[Action]] = [deque() for _ in range(ranks)]
        # Arrival of F's output at stage · m + i, of a gradient at (stages + stage) · m + i, once it is known.
        self.ready: list[float | None] = [None] * (2 * microbatches * len(placement))
        self.waiting: dict[int, tuple[int, float]] = {}  # slot → (rank, time from which the rank waits)
        self.events: list[tuple[float, int]] = [(0.0, rank) for rank in range(ranks)]

    def run(self, waits: list[float]) -> bool:
        """Let every rank act whenever it is free, in the order of time.

        False as soon as a rank has waited for more than `waits[rank]` seconds after its first cell.
        """
        events, orders, weights, actions = self.events, self.orders, self.weights, self.actions
        ready, waiting, held, positions = self.ready, self.waiting, self.held, self.next
        free: list[float] = [inf] * len(orders)  # when each rank ended what it did last
        while events:
            now, rank = heappop(events)
            order, position, own = orders[rank], positions[rank], weights[rank]
            if position == len(order):
                actions[rank] += own
                own.clear()
                continue
            cell = order[position]
            kind, stage, microbatch = cell
            seconds, needs, gives, delay = self.cells[kind][stage]
            arrival = ready[needs + microbatch] if needs >= 0 else now
            full = own and kind == _F and held[rank] >= self.limits[rank]
            if arrival is not None and arrival <= now and not full:
                if now > free[rank]:
                    waits[rank] -= now - free[rank]
                    if waits[rank] < 0:
                        return False
                free[rank] = now = now + seconds
                positions[rank] = position + 1
                actions[rank].append(cell)
                if kind == _F:
                    held[rank] += 1
                else:
                    own.append(new_action(Action, (_W, stage, microbatch)))
                heappush(events, (now, rank))
                gives += microbatch
                ready[gives] = now = now + delay
                if gives in waiting:
                    waiter, since = waiting.pop(gives)
                    heappush(events, (max(since, now), waiter))
            elif own:
                weight = own.popleft()
                actions[rank].append(weight)
                held[rank] -= 1
                free[rank] = now + self.weight_seconds[weight.stage]
                heappush(events, (free[rank], rank))
            elif arrival is not None:
                heappush(events, (arrival, rank))
            else:
                waiting[needs + microbatch] = (rank, now)
        return True


def _cells(kind: Kind, microbatches: int, placement: Sequence[int], times: StageTimes) -> list[_Cell]:
    """Return the cells of one kind by stage."""
    stages, row = len(placement), []
    base, step = (0, 1) if kind == _F else (stages * microbatches, -1)
    for stage, rank in enumerate(placement):
        source, towards = stage - step, stage + step
        crosses = 0 <= towards < stages and placement[towards] != rank
        row.append(
            _Cell(
                seconds=times.of(kind, stage),
                needs=base + source * microbatches if 0 <= source < stages else -1,
                gives=base + stage * microbatches,
                delay=times.latency + times.wire[min(stage, towards)] if crosses else 0.0,
            )
        )
    return row
