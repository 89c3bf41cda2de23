"""Fill weight gradients into a given order of forwards and input gradients.

Input gradients feed other ranks, weight gradients feed nobody. So each rank follows its given order of F and
I as soon as data arrives, and computes its oldest waiting W whenever the next cell cannot start: because its
data is still on the way, or because an F would exceed the memory limit.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence

from planner.schedules.action import Action, Kind, Schedule
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
) -> Schedule:
    """Return the schedule of `orders` (F and I only, per rank) with every W put in.

    `limits[rank]` is the most (stage, microbatch) activations that `rank` should hold; it is exceeded only
    where the order itself leaves no choice. `times` tell which gaps there are; the result is valid under any
    times.
    """
    filling = _Filling(orders, microbatches, placement, times, limits)
    filling.run()
    return Schedule(
        name=name,
        microbatches=microbatches,
        placement=tuple(placement),
        actions=tuple(map(tuple, filling.actions)),
    )


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
        self.orders, self.placement, self.times, self.limits = orders, placement, times, limits
        self.microbatches, self.last = microbatches, len(placement) - 1
        self.size = microbatches * len(placement)
        self.actions: list[list[Action]] = [[] for _ in range(ranks)]
        self.next = [0] * ranks
        self.held = [0] * ranks
        self.weights: list[deque[Action]] = [deque() for _ in range(ranks)]
        # Arrival of F's output at stage · m + i, of a gradient at size + stage · m + i, once it is known.
        self.ready: list[float | None] = [None] * (2 * self.size)
        self.waiting: dict[int, tuple[int, float]] = {}  # slot → (rank, time from which the rank waits)
        self.events: list[tuple[float, int]] = [(0.0, rank) for rank in range(ranks)]

    def run(self) -> None:
        """Let every rank act whenever it is free, in the order of time."""
        while self.events:
            now, rank = heapq.heappop(self.events)
            self._act(now, rank)

    def _act(self, now: float, rank: int) -> None:
        order, waiting = self.orders[rank], self.weights[rank]
        if self.next[rank] == len(order):
            self.actions[rank] += waiting
            waiting.clear()
            return
        cell = order[self.next[rank]]
        full = cell.kind == _F and self.held[rank] >= self.limits[rank] and waiting
        slot = self._needs(cell)
        arrival = self.ready[slot] if slot >= 0 else now
        if not full and arrival is not None and arrival <= now:
            self._start(now, rank, cell)
        elif waiting:
            weight = waiting.popleft()
            self.actions[rank].append(weight)
            self.held[rank] -= 1
            heapq.heappush(self.events, (now + self.times.of(_W, weight.stage), rank))
        elif arrival is not None:
            heapq.heappush(self.events, (arrival, rank))
        else:
            self.waiting[slot] = (rank, now)

    def _needs(self, cell: Action) -> int:
        """Return the slot of another stage's data that `cell` needs, or −1."""
        kind, stage, microbatch = cell
        if kind == _F:
            return (stage - 1) * self.microbatches + microbatch if stage else -1
        return self.size + (stage + 1) * self.microbatches + microbatch if stage < self.last else -1

    def _start(self, now: float, rank: int, cell: Action) -> None:
        kind, stage, microbatch = cell
        self.next[rank] += 1
        self.actions[rank].append(cell)
        end = now + self.times.of(kind, stage)
        if kind == _F:
            self.held[rank] += 1
            slot, towards = stage * self.microbatches + microbatch, stage + 1
        else:
            self.weights[rank].append(Action(_W, stage, microbatch))
            slot, towards = self.size + stage * self.microbatches + microbatch, stage - 1
        arrival = end
        if 0 <= towards <= self.last and self.placement[towards] != rank:
            arrival += self.times.latency + self.times.wire[min(stage, towards)]
        self.ready[slot] = arrival
        heapq.heappush(self.events, (end, rank))
        if slot in self.waiting:
            waiter, since = self.waiting.pop(slot)
            heapq.heappush(self.events, (max(since, arrival), waiter))
