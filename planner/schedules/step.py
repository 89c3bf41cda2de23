"""The timeline of a whole step on every rank: the schedule's cells and what lies around them, with the waits.

A simulated step and a measured one have the same form, so that both are traced, drawn and added up alike:

    rank 0   data  0F0 0F1 ··· 0B0 ··· 0B1  gradients·· optimizer        a cell waits from `start` to `ready`
             └──────── busy + wait + idle = step ────────────────┘       and computes from there to `end`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from planner.schedules.action import Kind
from planner.schedules.timeline import Timeline

_ROUNDING = 1e-9  # of a step


class Cell(NamedTuple):
    """One interval of a rank's timeline, in seconds from the start of the step."""

    rank: int
    name: str
    kind: str  # F, B, I, W, U, a message, or a phase such as "optimizer"
    stage: int  # −1 where it concerns none
    microbatch: int
    start: float
    ready: float
    end: float


class RankShare(NamedTuple):
    """Where the step of one rank goes, in seconds."""

    rank: int
    busy: float
    wait: float
    idle: float
    step: float


@dataclass(frozen=True, kw_only=True)
class StepTimeline:
    """Cells by rank and time, and how long the step takes; `steps` where that many overlap in it.

    Measured ranks begin and end a step at slightly different times: `steps_of[rank]` is the rank's own begin
    and duration, where it is not the whole of `seconds`.
    """

    title: str
    cells: tuple[Cell, ...]
    seconds: float
    steps: int = 1
    steps_of: tuple[tuple[float, float], ...] = ()

    @cached_property
    def ranks(self) -> int:
        """Pipeline ranks."""
        return 1 + max((cell.rank for cell in self.cells), default=-1)

    @cached_property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """The cells of each rank in the order of time."""
        rows: list[list[Cell]] = [[] for _ in range(self.ranks)]
        for cell in sorted(self.cells, key=lambda cell: (cell.start, cell.end)):
            rows[cell.rank].append(cell)
        return tuple(map(tuple, rows))

    @cached_property
    def chunks(self) -> dict[int, int]:
        """Stage → its place among the stages of its rank."""
        found: dict[int, int] = {}
        for row in self.rows:
            stages = sorted({cell.stage for cell in row if cell.stage >= 0})
            found |= {stage: place for place, stage in enumerate(stages)}
        return found

    @property
    def shares(self) -> tuple[RankShare, ...]:
        """Where each rank's step goes: busy + wait + idle = step."""
        shares = []
        for rank, row in enumerate(self.rows):
            busy = sum(cell.end - cell.ready for cell in row)
            wait = sum(cell.ready - cell.start for cell in row)
            step = self.steps_of[rank][1] if self.steps_of else self.seconds
            idle = step - busy - wait
            shares.append(RankShare(rank, busy, wait, idle if abs(idle) > _ROUNDING * step else 0.0, step))
        return tuple(shares)


def step_cells(timeline: Timeline, *, waits: bool) -> list[Cell]:
    """Return the cells of a simulated schedule; with `waits`, each waits from the end of the one before."""
    cells = []
    for rank, actions in enumerate(timeline.schedule.actions):
        free = 0.0
        for (kind, stage, microbatch), begin, end in zip(
            actions, timeline.starts[rank], timeline.ends[rank], strict=True
        ):
            start, ready = (begin - timeline.origin), (end - timeline.origin)
            name = f"{stage}{kind.name}{microbatch}"
            cells.append(
                Cell(rank, name, kind.name, stage, microbatch, free if waits else start, start, ready)
            )
            free = ready
    return cells


def simulated_step(timeline: Timeline) -> StepTimeline:
    """Return the schedule alone as a step: its cells, without waits, over its makespan."""
    return StepTimeline(
        title=timeline.schedule.name,
        cells=tuple(step_cells(timeline, waits=False)),
        seconds=timeline.makespan,
    )


def transfers(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Return (producer, consumer) of all data that goes from one rank to another."""
    made = {(cell.kind == "F", cell.stage, cell.microbatch): cell for cell in cells if cell.kind in MAKES}
    found = []
    for cell in cells:
        if cell.kind in MAKES:
            forward = cell.kind == "F"
            source = made.get((forward, cell.stage - 1 if forward else cell.stage + 1, cell.microbatch))
            if source is not None and source.rank != cell.rank:
                found.append((source, cell))
    return found


MAKES = (Kind.F.name, Kind.B.name, Kind.I.name)  # kinds whose result another stage takes
