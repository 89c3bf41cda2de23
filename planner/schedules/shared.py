"""Price ranks that share processor cores, as when 8 ranks run on a machine with 2 cores.

While n processes compute on c cores, each proceeds at the rate min(1, c / n) (processor sharing). All of them
proceed alike, so one clock of work done, which runs at that rate, serves all: an action that starts when the
clock shows w and needs d seconds of a core ends when it shows w + d.
"""

from __future__ import annotations

import heapq

from planner.schedules.action import Kind, Schedule
from planner.schedules.refusal import stuck
from planner.schedules.simulate import require_stages
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes
from profiles.errors import ConfigError

_COMPUTE_ENDS, _DATA_ARRIVES = 0, 1


def simulate_shared(
    schedule: Schedule, times: StageTimes, *, cores: float, processes_per_rank: int = 1
) -> Timeline:
    """Return the timeline when every pipeline rank stands for `processes_per_rank` processes (tp · dp).

    `times` are core seconds of one process alone; all processes of a pipeline rank move together.

    Raises:
        ScheduleRefused: when ranks wait for each other in a circle.
    """
    require_stages(schedule, times)
    if cores <= 0 or processes_per_rank < 1:
        raise ConfigError(f"cannot share {cores} cores among {processes_per_rank} processes per rank")
    return _Sharing(schedule, times, cores / processes_per_rank).run()


class _Sharing:
    """State of one simulation: real time, the clock of work done, and who computes until when."""

    def __init__(self, schedule: Schedule, times: StageTimes, cores: float) -> None:
        self.schedule, self.times, self.cores = schedule, times, cores
        self.now = self.work = 0.0
        self.computing: list[tuple[float, int]] = []  # (work clock at the end, rank)
        self.travelling: list[tuple[float, tuple[bool, int, int]]] = []  # (arrival, data)
        self.arrived: set[tuple[bool, int, int]] = set()  # (is a forward, producing stage, microbatch)
        self.waiting: dict[tuple[bool, int, int], int] = {}
        self.link_free: dict[tuple[int, int], float] = {}
        self.starts: tuple[list[float], ...] = tuple([] for _ in schedule.actions)
        self.ends: tuple[list[float], ...] = tuple([] for _ in schedule.actions)

    def run(self) -> Timeline:
        for rank in range(self.schedule.ranks):
            self._start(rank)
        while self.computing or self.travelling:
            if self._advance() == _COMPUTE_ENDS:
                _, rank = heapq.heappop(self.computing)
                self._finish(rank)
            else:
                self._arrive(heapq.heappop(self.travelling)[1])
        for rank, actions in enumerate(self.schedule.actions):
            if len(self.ends[rank]) < len(actions):
                raise stuck(self.schedule, rank, len(self.ends[rank]), actions[len(self.ends[rank])])
        return Timeline(schedule=self.schedule, starts=self.starts, ends=self.ends)

    def _advance(self) -> int:
        """Move both clocks to the next event and say which kind it is."""
        rate = min(1.0, self.cores / len(self.computing)) if self.computing else 1.0
        ends = self.now + (self.computing[0][0] - self.work) / rate if self.computing else float("inf")
        arrives = self.travelling[0][0] if self.travelling else float("inf")
        then = max(self.now, min(ends, arrives))
        self.work = self.computing[0][0] if ends <= arrives else self.work + (then - self.now) * rate
        self.now = then
        return _COMPUTE_ENDS if ends <= arrives else _DATA_ARRIVES

    def _start(self, rank: int) -> None:
        """Start the rank's next action, or note what it waits for."""
        position = len(self.starts[rank])
        if position == len(self.schedule.actions[rank]):
            return
        kind, stage, microbatch = self.schedule.actions[rank][position]
        needed = None
        if kind == Kind.F and stage > 0:
            needed = (True, stage - 1, microbatch)
        elif kind in (Kind.B, Kind.I) and stage + 1 < self.schedule.stages:
            needed = (False, stage + 1, microbatch)
        if needed is not None and needed not in self.arrived:
            self.waiting[needed] = rank
            return
        self.starts[rank].append(self.now)
        heapq.heappush(self.computing, (self.work + self.times.of(kind, stage), rank))

    def _finish(self, rank: int) -> None:
        kind, stage, microbatch = self.schedule.actions[rank][len(self.ends[rank])]
        self.ends[rank].append(self.now)
        if kind in (Kind.F, Kind.B, Kind.I):
            self._send(rank, (kind == Kind.F, stage, microbatch))
        self._start(rank)

    def _send(self, rank: int, data: tuple[bool, int, int]) -> None:
        forward, stage, _ = data
        towards = stage + 1 if forward else stage - 1
        if not 0 <= towards < self.schedule.stages:
            return
        target = self.schedule.placement[towards]
        if target == rank:
            self._arrive(data)
            return
        link = (rank, target)
        sent = max(self.now, self.link_free.get(link, 0.0)) + self.times.wire[min(stage, towards)]
        self.link_free[link] = sent
        heapq.heappush(self.travelling, (sent + self.times.latency, data))

    def _arrive(self, data: tuple[bool, int, int]) -> None:
        self.arrived.add(data)
        waiter = self.waiting.pop(data, None)
        if waiter is not None:
            self._start(waiter)
