"""Generate a schedule for given durations and memory: each rank does the best it can, whenever it is free.

    can start now?   B or I of the oldest microbatch of a stage, when its gradient has arrived
                     F of the next microbatch of a stage, when its input has arrived and memory allows
    otherwise        the oldest waiting W; or wait, if something better arrives soon (`patience`)

The order among those is the policy. A forward is allowed while the rank keeps room for the oldest microbatch
that has forwards left on it; so with room for one microbatch through all its stages no rank can block itself.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from planner.schedules.action import Action, Kind, Schedule, new_action
from planner.schedules.times import StageTimes

_F, _B, _I, _W = Kind.F, Kind.B, Kind.I, Kind.W
_NEVER = float("inf")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a rank prefers.

    Attributes:
        split: compute input and weight gradients apart (I, W) rather than together (B).
        forward_first: prefer forwards to backwards when both could start.
        deep_first: among forwards prefer the later stage; otherwise the earlier.
        patience: wait for an arrival rather than start a W, when it comes within this share of the W.
        noise: randomness of the preferences, from 0 (none) to 1, drawn from `seed`.
    """

    split: bool = True
    forward_first: bool = False
    deep_first: bool = True
    patience: float = 0.0
    noise: float = 0.0
    seed: int = 0


def generate(
    *,
    name: str,
    microbatches: int,
    placement: Sequence[int],
    times: StageTimes,
    limits: Sequence[int],
    policy: Policy,
    within: float = _NEVER,
) -> Schedule | None:
    """Return the schedule that `policy` gives; no rank holds more than `limits[rank]` stage activations.

    `limits[rank]` must be at least the number of the rank's stages. None is returned as soon as a rank has
    waited so long that its span exceeds `within`.
    """
    generation = _Generation(microbatches, tuple(placement), times, limits, policy)
    waits = [within - work for work in times.work(placement, microbatches, split=policy.split)]
    if min(waits) < 0 or not generation.run(waits):
        return None
    return Schedule(
        name=name,
        microbatches=microbatches,
        placement=tuple(placement),
        actions=tuple(map(tuple, generation.actions)),
    )


class _Generation:
    """State of one pass over time."""

    def __init__(
        self,
        microbatches: int,
        placement: tuple[int, ...],
        times: StageTimes,
        limits: Sequence[int],
        policy: Policy,
    ) -> None:
        ranks, stages = max(placement) + 1, len(placement)
        self.microbatches, self.placement, self.times = microbatches, placement, times
        self.limits, self.policy, self.last = limits, policy, stages - 1
        self.random = random.Random(policy.seed)  # noqa: S311 (a search, not a secret)
        self.backward = _I if policy.split else _B
        self.seconds = times.table
        # What is further down the model goes first among backwards, and by the policy among forwards.
        depths = [stage / stages for stage in range(stages)]
        self.backward_scores = [-depth for depth in depths]
        first = 2.0 if policy.forward_first else -2.0
        self.forward_scores = [first + (depth if policy.deep_first else -depth) for depth in depths]
        self.held_stages = [tuple(s for s in range(stages) if placement[s] == rank) for rank in range(ranks)]
        self.forwards = [0] * stages  # next microbatch of each stage
        self.backwards = [0] * stages
        # Arrival times of each stage's inputs and gradients, in the order of microbatches.
        self.inputs: list[list[float]] = [[] for _ in range(stages)]
        self.gradients: list[list[float]] = [[] for _ in range(stages)]
        self.inputs[0] = [0.0] * microbatches
        self.gradients[-1] = [0.0] * microbatches
        self.held = [0] * ranks
        self.weights: list[deque[Action]] = [deque() for _ in range(ranks)]
        self.free = [0.0] * ranks
        self.actions: list[list[Action]] = [[] for _ in range(ranks)]
        self.events = [(0.0, rank) for rank in range(ranks)]
        self.wake = [0.0] * ranks  # when each rank acts next; other events of it are stale

    def run(self, waits: list[float]) -> bool:
        """List every action; False as soon as a rank has waited for more than `waits[rank]` seconds."""
        events, wake, actions, free = self.events, self.wake, self.actions, self.free
        while events:
            now, rank = heapq.heappop(events)
            if now != wake[rank]:
                continue
            wake[rank] = _NEVER
            listed, since = len(actions[rank]), free[rank]
            self._act(now, rank)
            if listed and now > since and len(actions[rank]) > listed:
                waits[rank] -= now - since
                if waits[rank] < 0:
                    return False
        return True

    def _act(self, now: float, rank: int) -> None:
        stage, is_forward, soonest = self._choose(now, rank)
        if stage >= 0:
            self._start(now, rank, stage, is_forward=is_forward)
            return
        waiting = self.weights[rank]
        if waiting:
            seconds = self.seconds[_W][waiting[0].stage]
            if soonest == _NEVER or soonest - now >= self.policy.patience * seconds:
                self.actions[rank].append(waiting.popleft())
                self.held[rank] -= 1
                self._occupy(rank, now + seconds)
                return
        self._wake(rank, soonest)

    def _choose(self, now: float, rank: int) -> tuple[int, bool, float]:
        """Return the stage of the preferred action that can start now (−1: none) and whether it is F, and
        when the next one could start that cannot yet.
        """
        chosen, is_forward, best, soonest = -1, False, -_NEVER, _NEVER
        noise = self.policy.noise
        for stage in self.held_stages[rank]:
            microbatch, next_forward = self.backwards[stage], self.forwards[stage]
            arrivals = self.gradients[stage]
            if microbatch < next_forward and microbatch < len(arrivals):
                arrival = arrivals[microbatch]
                if arrival > now:
                    soonest = min(soonest, arrival)
                else:
                    score = self.backward_scores[stage] + (noise and noise * self.random.random() * 2)
                    if score > best:
                        chosen, is_forward, best = stage, False, score
            arrivals = self.inputs[stage]
            if next_forward < len(arrivals) and self._has_room(rank, stage):
                arrival = arrivals[next_forward]
                if arrival > now:
                    soonest = min(soonest, arrival)
                else:
                    score = self.forward_scores[stage] + (noise and noise * self.random.random() * 4)
                    if score > best:
                        chosen, is_forward, best = stage, True, score
        return chosen, is_forward, soonest

    def _has_room(self, rank: int, stage: int) -> bool:
        """Whether F of `stage` leaves room for the forwards of the rank's oldest unfinished microbatch."""
        room = self.limits[rank] - self.held[rank]
        if room <= 0:
            return False
        stages = self.held_stages[rank]
        if room > len(stages):
            return True
        oldest = min(self.forwards[s] for s in stages)
        if self.forwards[stage] == oldest:
            return True
        return room - 1 >= sum(self.forwards[s] == oldest for s in stages)

    def _start(self, now: float, rank: int, stage: int, *, is_forward: bool) -> None:
        counts = self.forwards if is_forward else self.backwards
        kind, microbatch = _F if is_forward else self.backward, counts[stage]
        self.actions[rank].append(new_action(Action, (kind, stage, microbatch)))
        counts[stage] = microbatch + 1
        end = now + self.seconds[kind][stage]
        if is_forward:
            self.held[rank] += 1
            self._deliver(rank, stage, stage + 1, self.inputs, end)
        else:
            if kind == _I:
                self.weights[rank].append(new_action(Action, (_W, stage, microbatch)))
            else:
                self.held[rank] -= 1
            self._deliver(rank, stage, stage - 1, self.gradients, end)
        self._occupy(rank, end)

    def _deliver(self, rank: int, stage: int, towards: int, arrivals: list[list[float]], end: float) -> None:
        if not 0 <= towards <= self.last:
            return
        target = self.placement[towards]
        if target != rank:
            end += self.times.latency + self.times.wire[min(stage, towards)]
            self._wake(target, max(end, self.free[target]))
        arrivals[towards].append(end)

    def _occupy(self, rank: int, until: float) -> None:
        self.free[rank] = self.wake[rank] = until
        heapq.heappush(self.events, (until, rank))

    def _wake(self, rank: int, when: float) -> None:
        """Let the rank act at `when`, unless it will earlier; it then looks again."""
        if when < self.wake[rank]:
            self.wake[rank] = when
            heapq.heappush(self.events, (when, rank))
