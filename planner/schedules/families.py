"""Every schedule by its name, and the one function that builds it."""

from __future__ import annotations

import difflib

from planner.schedules.action import Schedule
from planner.schedules.family import Family, ScheduleError
from planner.schedules.named import NAMED, build_family

FAMILIES = NAMED  # what a search over layouts tries; `auto` is a search itself


def _automatic(ranks: int, microbatches: int, chunks: int) -> Schedule:
    from planner.schedules.automatic import auto_by_name  # noqa: PLC0415 (start-up time of all others)

    return auto_by_name(ranks, microbatches, chunks)


AUTO = Family(
    name="auto",
    summary="searched for the given durations, transfers and memory; by name alone for F = I = W",
    source="Cuboid",
    build=_automatic,
    chunked=True,
    split=True,
)


def find_family(name: str) -> Family:
    """Return the family called `name`.

    Raises:
        ScheduleError: naming the families that exist.
    """
    families = (*FAMILIES, AUTO)
    for family in families:
        if family.name == name:
            return family
    names = [family.name for family in families]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(names)}"
    raise ScheduleError(f"there is no schedule '{name}'; {hint}")


def build(name: str, *, ranks: int, microbatches: int, chunks: int | None = None, steps: int = 1) -> Schedule:
    """Build the schedule `name` for `ranks` pipeline ranks, each holding `chunks` stages.

    `chunks` may be left out, for the family's own number (1; 2 for interleaved and V-shaped families). An
    asynchronous family lists `steps` steps of `microbatches` microbatches, since they overlap; a step of any
    other ends before the next begins.

    Raises:
        ScheduleError: when the family has no schedule for these numbers, saying which would work.
    """
    return build_family(find_family(name), ranks=ranks, microbatches=microbatches, chunks=chunks, steps=steps)
