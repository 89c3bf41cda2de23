"""A schedule as data: actions, placement, and the list of actions of every rank.

    cell of a timeline      F forward · B whole backward · I input gradient · W weight gradient
    added by lowering       SEND_F/RECV_F activations to/from the next stage, SEND_B/RECV_B gradients back,
                            REDUCE a stage's gradients over dp
    asynchronous families   U: the optimizer step of one stage

A stage is owned by exactly one rank (`placement[stage]`), which holds `chunks` of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What an action does. Comparisons are on integers, since the simulator handles millions."""

    F = 0
    B = 1
    I = 2  # noqa: E741 (the field's letter for the input gradient)
    W = 3
    U = 4
    SEND_F = 5
    RECV_F = 6
    SEND_B = 7
    RECV_B = 8
    REDUCE = 9

    # Enum's own hash is a Python function of the name, and actions are kept in sets by the million.
    __hash__ = int.__hash__

    @property
    def is_compute(self) -> bool:
        """Whether the action belongs to a schedule before lowering."""
        return self <= Kind.U


class Action(NamedTuple):
    """One cell. `microbatch` is −1 where an action concerns none (REDUCE, U after a whole batch)."""

    kind: Kind
    stage: int
    microbatch: int

    def __str__(self) -> str:
        return (
            f"{self.stage}{self.kind.name}{self.microbatch}"
            if self.microbatch >= 0
            else (f"{self.stage}{self.kind.name}")
        )


# `new_action(Action, (kind, stage, microbatch))` is what `Action(kind, stage, microbatch)` calls, without the
# function in between: for loops that make millions.
new_action = tuple.__new__


def cells(kind: Kind, stage: int, microbatches: Iterable[int]) -> list[Action]:
    """Return one cell of `kind` and `stage` for each of `microbatches`, in their order.

    Schedules have hundreds of thousands of cells: this way they are made without running Python for each.
    """
    return list(map(new_action, repeat(Action), zip(repeat(kind), repeat(stage), microbatches)))


class Message(NamedTuple):
    """What one SEND and one RECV share: activations of (stage → stage ± 1) for a microbatch."""

    source: int
    target: int
    tag: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The action lists of all pipeline ranks, and the placement they refer to.

    `flush` is False for asynchronous families, which have no barrier between steps; `weight_versions[rank]`
    is how many versions of its weights a rank must keep, and `forward_versions[stage][microbatch]` how many
    updates of the stage the weights have seen that a microbatch uses (forward and backward alike).
    """

    name: str
    microbatches: int
    placement: tuple[int, ...]  # stage → rank
    actions: tuple[tuple[Action, ...], ...]  # rank → its cells in order
    flush: bool = True
    weight_versions: tuple[int, ...] = ()
    forward_versions: tuple[tuple[int, ...], ...] = ()

    @property
    def ranks(self) -> int:
        """Pipeline ranks."""
        return len(self.actions)

    @property
    def stages(self) -> int:
        """Stages of the whole model."""
        return len(self.placement)

    @property
    def chunks(self) -> int:
        """Stages per rank."""
        return self.stages // self.ranks

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of its actions."""
        return set().union(*(map(itemgetter(0), row) for row in self.actions))

    def stages_of(self, rank: int) -> tuple[int, ...]:
        """Return the stages that `rank` holds, ascending."""
        return tuple(stage for stage, owner in enumerate(self.placement) if owner == rank)


def loop_placement(ranks: int, chunks: int = 1) -> tuple[int, ...]:
    """Stage s on rank s mod p (Narayanan et al. 2021, arXiv 2104.04473, §2.2)."""
    return tuple(stage % ranks for stage in range(ranks * chunks))


def v_placement(ranks: int, chunks: int = 2) -> tuple[int, ...]:
    """Down the ranks and back up, in turn (Qi et al. 2024, arXiv 2405.15362, §3)."""
    row = [*range(ranks), *reversed(range(ranks))]
    return tuple(row[stage % (2 * ranks)] for stage in range(ranks * chunks))
