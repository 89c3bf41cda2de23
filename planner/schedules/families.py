"""All families, and the one function that builds a schedule by name."""

from __future__ import annotations

import difflib

from planner.schedules.action import Schedule
from planner.schedules.family import Family, ScheduleError
from planner.schedules.gpipe import GPIPE
from planner.schedules.one_f_one_b import ONE_F_ONE_B

FAMILIES: tuple[Family, ...] = (GPIPE, ONE_F_ONE_B)


def find_family(name: str) -> Family:
    """Return the family called `name`.

    Raises:
        ScheduleError: naming the families that exist.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    names = [family.name for family in FAMILIES]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(names)}"
    raise ScheduleError(f"there is no schedule '{name}'; {hint}")


def build(name: str, *, ranks: int, microbatches: int, chunks: int | None = None) -> Schedule:
    """Build the schedule `name` for `ranks` pipeline ranks, each holding `chunks` stages.

    `chunks` may be left out, for the family's own number (1; 2 for interleaved and V-shaped families).

    Raises:
        ScheduleError: when the family has no schedule for these numbers, saying which would work.
    """
    family = find_family(name)
    chunks = family.chunks if chunks is None else chunks
    for value, what in ((ranks, "ranks"), (microbatches, "microbatches"), (chunks, "chunks")):
        if value < 1:
            raise ScheduleError(f"{what} = {value}: must be at least 1")
    if not family.chunked and chunks != family.chunks:
        held = "1 stage" if family.chunks == 1 else f"{family.chunks} stages"
        raise ScheduleError(
            f"{name} holds exactly {held} per rank, not {chunks}; use chunks = {family.chunks}"
            + _chunked_instead(family)
        )
    return family.build(ranks, microbatches, chunks)


def _chunked_instead(family: Family) -> str:
    others = [other.name for other in FAMILIES if other.chunked and other.flush]
    return f", or one of {', '.join(others)}" if others and family.chunks == 1 else ""
