"""What a schedule family is: a name, its source, where its stages lie, and one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from planner.schedules.action import Schedule
from profiles.errors import ConfigError

Placement = Literal["loop", "v"]


class ScheduleError(ConfigError):
    """A family cannot be built for these numbers; the message says which would work."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A named kind of schedule.

    `build(ranks, microbatches, chunks)` is a pure function; it raises `ScheduleError` where the family has no
    schedule for the numbers. `chunks` are the stages per rank used when none are asked for; a family that is
    not `chunked` has no other. `split` families separate input from weight gradients; families without
    `flush` are asynchronous: the optimizer steps while other microbatches are in flight, and
    `build_steps(ranks, microbatches, chunks, steps)` lists several steps, which overlap. After `settled`
    rounds of p microbatches, a step grows by the same amount in every further round (to 0.5 % of its time):
    in a `seamless` family, while hops are short, by the work of the slowest rank.
    """

    name: str
    summary: str
    source: str
    build: Callable[[int, int, int], Schedule]
    placement: Placement = "loop"
    chunks: int = 1
    chunked: bool = False
    split: bool = False
    flush: bool = True
    settled: int = 2
    seamless: bool = False
    build_steps: Callable[[int, int, int, int], Schedule] | None = None
