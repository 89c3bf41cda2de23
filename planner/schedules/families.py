"""All families, and the one function that builds a schedule by name."""

from __future__ import annotations

import difflib

from planner.schedules.action import Schedule
from planner.schedules.dualpipe_v import DUALPIPE_V
from planner.schedules.family import Family, ScheduleError
from planner.schedules.gpipe import GPIPE
from planner.schedules.interleaved import INTERLEAVED
from planner.schedules.looped_bfs import LOOPED_BFS
from planner.schedules.naive import NAIVE
from planner.schedules.one_f_one_b import ONE_F_ONE_B
from planner.schedules.pipedream import PIPEDREAM, PIPEDREAM_2BW
from planner.schedules.v_blocks import V_HALF, V_MIN
from planner.schedules.zb_v import ZB_V
from planner.schedules.zero_bubble import ZB_H1, ZB_H2

NAMED: tuple[Family, ...] = (
    NAIVE,
    GPIPE,
    ONE_F_ONE_B,
    INTERLEAVED,
    LOOPED_BFS,
    ZB_H1,
    ZB_H2,
    ZB_V,
    V_HALF,
    V_MIN,
    DUALPIPE_V,
    PIPEDREAM,
    PIPEDREAM_2BW,
)

FAMILIES = NAMED


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


def build(name: str, *, ranks: int, microbatches: int, chunks: int | None = None, steps: int = 1) -> Schedule:
    """Build the schedule `name` for `ranks` pipeline ranks, each holding `chunks` stages.

    `chunks` may be left out, for the family's own number (1; 2 for interleaved and V-shaped families). An
    asynchronous family lists `steps` steps of `microbatches` microbatches, since they overlap; a step of any
    other ends before the next begins.

    Raises:
        ScheduleError: when the family has no schedule for these numbers, saying which would work.
    """
    family = find_family(name)
    chunks = family.chunks if chunks is None else chunks
    for value, what in (
        (ranks, "ranks"),
        (microbatches, "microbatches"),
        (chunks, "chunks"),
        (steps, "steps"),
    ):
        if value < 1:
            raise ScheduleError(f"{what} = {value}: must be at least 1")
    if not family.chunked and chunks != family.chunks:
        held = "1 stage" if family.chunks == 1 else f"{family.chunks} stages"
        raise ScheduleError(
            f"{name} holds exactly {held} per rank, not {chunks}; use chunks = {family.chunks}"
            + _chunked_instead(family)
        )
    if family.build_steps is not None:
        return family.build_steps(ranks, microbatches, chunks, steps)
    if steps > 1:
        raise ScheduleError(f"{name} ends every step with a flush; build one step (steps = 1) and repeat it")
    return family.build(ranks, microbatches, chunks)


def _chunked_instead(family: Family) -> str:
    others = [other.name for other in FAMILIES if other.chunked and other.flush]
    return f", or one of {', '.join(others)}" if others and family.chunks == 1 else ""
