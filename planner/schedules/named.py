"""The families whose order follows from ranks, microbatches and chunks alone."""

from __future__ import annotations

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


def build_family(
    family: Family, *, ranks: int, microbatches: int, chunks: int | None = None, steps: int = 1
) -> Schedule:
    """Build a schedule of `family`; see `planner.schedules.build`."""
    chunks = family.chunks if chunks is None else chunks
    for value, what in (
        (ranks, "ranks"),
        (microbatches, "microbatches"),
        (chunks, "chunks"),
        (steps, "steps"),
    ):
        if value < 1:
            raise ScheduleError(f"{what} = {value}: must be at least 1")
    require_chunks(family, chunks)
    if family.build_steps is not None:
        return family.build_steps(ranks, microbatches, chunks, steps)
    if steps > 1:
        raise ScheduleError(
            f"{family.name} ends every step with a flush; build one step (steps = 1) and repeat it"
        )
    return family.build(ranks, microbatches, chunks)


def require_chunks(family: Family, chunks: int) -> None:
    """Refuse stages per rank that a family does not have.

    Raises:
        ScheduleError: with the number to use.
    """
    if not family.chunked and chunks != family.chunks:
        held = "1 stage" if family.chunks == 1 else f"{family.chunks} stages"
        raise ScheduleError(
            f"{family.name} holds exactly {held} per rank, not {chunks}; use chunks = {family.chunks}"
            + _chunked_instead(family)
        )


def _chunked_instead(family: Family) -> str:
    others = [other.name for other in NAMED if other.chunked and other.flush]
    return f", or one of {', '.join(others)}" if others and family.chunks == 1 else ""
