"""Run a schedule on paper: every action starts when its rank is free and its data has arrived.

    F(s, i) needs F(s − 1, i) · B or I(s, i) needs B or I(s + 1, i) · the rest follows from the rank's order

Data of another rank arrives `latency` + `wire` after the producer's end; messages of one directed link follow
each other on the wire. Sends are buffered here; `simulate_blocking` is the strict counterpart.
"""

from __future__ import annotations

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


def _run(
    schedule: Schedule, times: StageTimes, starts: tuple[list[float], ...], ends: tuple[list[float], ...]
) -> None:
    """Fill `starts` and `ends`; one pass over the actions in an order in which data is always there."""
    microbatches, last = schedule.microbatches, schedule.stages - 1
    size = schedule.stages * microbatches
    placement, table, latency, wire = schedule.placement, times.table, times.latency, times.wire
    # Arrival of F's output at slot stage · m + i, of a gradient at size + stage · m + i, named by producer.
    ready: list[float | None] = [None] * (2 * size)
    waiting: dict[int, int] = {}  # slot → the rank that stopped for it
    link_free: dict[tuple[int, int], float] = {}
    runnable = list(range(schedule.ranks - 1, -1, -1))
    while runnable:
        rank = runnable.pop()
        begun, done, actions = starts[rank], ends[rank], schedule.actions[rank]
        now = done[-1] if done else 0.0
        for position in range(len(done), len(actions)):
            kind, stage, microbatch = actions[position]
            produced, towards, slot = -1, stage, -1
            if kind == _F:
                produced, towards = stage * microbatches + microbatch, stage + 1
                slot = produced - microbatches if stage else -1
            elif kind in (_B, _I):
                produced, towards = size + stage * microbatches + microbatch, stage - 1
                slot = produced + microbatches if stage < last else -1
            start = now
            if slot >= 0:
                arrival = ready[slot]
                if arrival is None:
                    waiting[slot] = rank
                    break
                start = max(start, arrival)
            now = start + table[kind][stage]
            begun.append(start)
            done.append(now)
            if produced >= 0:
                arrival = now
                if 0 <= towards <= last and placement[towards] != rank:
                    seconds = wire[min(stage, towards)]
                    if seconds:
                        link = (rank, placement[towards])
                        arrival = link_free[link] = max(now, link_free.get(link, 0.0)) + seconds
                    arrival += latency
                ready[produced] = arrival
                waiter = waiting.pop(produced, None)
                if waiter is not None:
                    runnable.append(waiter)
    for rank, actions in enumerate(schedule.actions):
        if len(ends[rank]) < len(actions):
            raise stuck(schedule, rank, len(ends[rank]), actions[len(ends[rank])])
