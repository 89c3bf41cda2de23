"""Run a schedule on paper: every action starts when its rank is free and its data has arrived.

    F(s, i) needs F(s − 1, i) · B or I(s, i) needs B or I(s + 1, i) · the rest follows from the rank's order

Data of another rank arrives `latency` + `wire` after the producer's end; messages of one directed link follow
each other on the wire. Sends are buffered here; `simulate_blocking` is the strict counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import getitem
from typing import NamedTuple

from planner.schedules.action import Kind, Schedule
from planner.schedules.refusal import stuck
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes
from profiles.errors import ConfigError

_F, _B, _I = int(Kind.F), int(Kind.B), int(Kind.I)


def require_stages(schedule: Schedule, times: StageTimes) -> None:
    """Refuse times for another number of stages."""
    if times.stages != schedule.stages:
        raise ConfigError(
            f"{schedule.name} has {schedule.stages} stages, times are given for {times.stages};"
            " give one per stage"
        )


def simulate(schedule: Schedule, times: StageTimes, *, blocking: bool = False) -> Timeline:
    """Return the timeline of `schedule`.

    With `blocking`, a send holds its rank until the receiver has taken the data (zero buffering).

    Raises:
        ScheduleRefused: when ranks wait for each other in a circle.
    """
    require_stages(schedule, times)
    if blocking:
        from planner.schedules.blocking import simulate_blocking  # noqa: PLC0415 (lowering simulates)

        return simulate_blocking(schedule, times)
    starts: tuple[list[float], ...] = tuple([] for _ in schedule.actions)
    ends: tuple[list[float], ...] = tuple([] for _ in schedule.actions)
    _run(schedule, times, starts, ends)
    return Timeline(schedule=schedule, starts=starts, ends=ends)


class _Cell(NamedTuple):
    """What all actions of one kind and stage share; slots are counted from the microbatch's number on."""

    seconds: float
    needs: int  # slot of the data it waits for, or −1
    gives: int  # slot of the data it produces, or −1
    link: int  # number of the directed link that the data crosses, or −1
    wire: float  # seconds the link is busy with it


def _cells(schedule: Schedule, times: StageTimes) -> list[list[_Cell]]:
    """Return the cells by kind and stage.

    F's output of stage s lies at slot s · m + i, a gradient at (stages + s) · m + i, named by producer.
    """
    m, stages, ranks = schedule.microbatches, schedule.stages, schedule.ranks
    placement, size = schedule.placement, schedule.stages * schedule.microbatches
    rows = []
    for kind, seconds in enumerate(times.table):
        row = []
        for stage in range(stages):
            towards = source = -1
            if kind == _F:
                towards, source = stage + 1, stage - 1
            elif kind in (_B, _I):
                towards, source = stage - 1, stage + 1
            passes = kind in (_F, _B, _I)
            base = 0 if kind == _F else size
            link, wire = -1, 0.0
            if passes and 0 <= towards < stages and placement[towards] != placement[stage]:
                link = placement[stage] * ranks + placement[towards]
                wire = times.wire[min(stage, towards)]
            row.append(
                _Cell(
                    seconds=seconds[stage],
                    needs=base + source * m if passes and 0 <= source < stages else -1,
                    gives=base + stage * m if passes else -1,
                    link=link,
                    wire=wire,
                )
            )
        rows.append(row)
    return rows


def _streams(schedule: Schedule, cells: list[list[_Cell]]) -> list[Iterator[tuple[_Cell, int]]]:
    """Return, per rank, its cells and their microbatches in order; made as they are asked for."""
    streams: list[Iterator[tuple[_Cell, int]]] = []
    for row in schedule.actions:
        kinds, stages, microbatches = zip(*row, strict=True) if row else ((), (), ())
        streams.append(zip(map(getitem, map(cells.__getitem__, kinds), stages), microbatches, strict=True))
    return streams


def _run(
    schedule: Schedule, times: StageTimes, starts: tuple[list[float], ...], ends: tuple[list[float], ...]
) -> None:
    """Fill `starts` and `ends`; one pass over the actions in an order in which data is always there."""
    streams, latency = _streams(schedule, _cells(schedule, times)), times.latency
    ready: list[float | None] = [None] * (2 * schedule.stages * schedule.microbatches)  # arrival by slot
    waiting: dict[int, int] = {}  # slot → the rank that stopped for it
    stopped: dict[int, tuple[_Cell, int]] = {}  # rank → the cell it stopped at
    link_free: dict[int, float] = {}
    runnable = list(range(schedule.ranks - 1, -1, -1))
    while runnable:
        rank = runnable.pop()
        begun, done = starts[rank], ends[rank]
        now = done[-1] if done else 0.0
        for cell, microbatch in chain((stopped.pop(rank),) if rank in stopped else (), streams[rank]):
            seconds, needs, gives, link, wire = cell
            if needs >= 0:
                arrival = ready[needs + microbatch]
                if arrival is None:
                    waiting[needs + microbatch] = rank
                    stopped[rank] = cell, microbatch
                    break
                if arrival > now:  # noqa: PLR1730 (max() takes twice as long)
                    now = arrival
            begun.append(now)
            now += seconds
            done.append(now)
            if gives < 0:
                continue
            if link < 0:
                ready[gives + microbatch] = now
                continue
            gives += microbatch
            if wire:
                free = link_free.get(link, 0.0)
                free = (free if free > now else now) + wire
                link_free[link] = free
                ready[gives] = free + latency
            else:
                ready[gives] = now + latency
            if gives in waiting:
                runnable.append(waiting.pop(gives))
    for rank, actions in enumerate(schedule.actions):
        if len(ends[rank]) < len(actions):
            raise stuck(schedule, rank, len(ends[rank]), actions[len(ends[rank])])
