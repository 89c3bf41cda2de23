"""What `auto` chooses from: named families, families with their gaps refilled, and generated schedules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.family import Family, ScheduleError
from planner.schedules.fill import fill_weights
from planner.schedules.generate import Policy, generate
from planner.schedules.memory import peak_stage_activations
from planner.schedules.named import NAMED, build_family
from planner.schedules.problem import Problem


@dataclass(frozen=True)
class Published:
    """The named families' schedules for one problem, each built once."""

    problem: Problem
    _built: dict[Family, Schedule | None] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, family: Family) -> Schedule | None:
        """Return a family's schedule for the problem, if it has one."""
        if family not in self._built:
            self._built[family] = self._build(family)
        return self._built[family]

    def _build(self, family: Family) -> Schedule | None:
        problem = self.problem
        try:
            return build_family(
                family, ranks=problem.ranks, microbatches=problem.microbatches, chunks=problem.chunks
            )
        except ScheduleError:
            return None  # not with these chunks


def named() -> tuple[Named, ...]:
    """Return every family whose steps end with a flush; cheap and promising ones first."""
    return tuple(Named(family) for family in NAMED if family.flush)


def unnamed(problem: Problem, *, thorough: bool) -> Iterator[Refilled | Generated]:
    """Yield what makes further candidates; cheap and promising ones first."""
    yield from (Refilled(maker.family) for maker in named() if maker.family.split)
    for placement in problem.placements():
        for policy in _policies(problem) if thorough else _FEW_POLICIES:
            yield Generated(placement, policy)


_FEW_POLICIES = (Policy(), Policy(patience=0.5))


def _policies(problem: Problem) -> Iterator[Policy]:
    for split, forward_first, deep_first in itertools.product((True, False), (False, True), (True, False)):
        for patience in (0.0, 0.5, 1.0) if split else (0.0,):
            yield Policy(split=split, forward_first=forward_first, deep_first=deep_first, patience=patience)
    actions = 3 * problem.ranks * problem.microbatches
    for seed in range(min(40, 40_000 // actions)):
        yield Policy(noise=0.5 if seed % 2 else 0.15, seed=seed, patience=(0.0, 0.5)[seed % 4 // 2])


@dataclass(frozen=True)
class Named:
    """A named family as published."""

    family: Family

    def __call__(self, published: Published, within: float = inf) -> Schedule | None:
        """Return its schedule, if it has one; however long it is."""
        return published(self.family)


@dataclass(frozen=True)
class Refilled:
    """A family's order of F and I, with each W where these durations leave a gap."""

    family: Family

    def __call__(self, published: Published, within: float = inf) -> Schedule | None:
        """Return its schedule, if it has one with a cycle `within` so many seconds."""
        problem, schedule = published.problem, published(self.family)
        if schedule is None:
            return None
        orders = [
            [
                action._replace(kind=Kind.F if action.kind == Kind.F else Kind.I)
                for action in row
                if action.kind != Kind.W
            ]
            for row in schedule.actions
        ]
        limits = problem.limits(schedule.chunks)
        if problem.memory_limit is None:
            limits = peak_stage_activations(schedule)
        elif any(_least(order) > limit for order, limit in zip(orders, limits, strict=True)):
            return None  # too much in flight wherever the W go
        return fill_weights(
            orders,
            name="auto",
            microbatches=problem.microbatches,
            placement=schedule.placement,
            times=problem.times_of(schedule.placement),
            limits=limits,
            within=within,
        )


@dataclass(frozen=True)
class Generated:
    """A schedule grown action by action under one policy."""

    placement: tuple[int, ...]
    policy: Policy

    def __call__(self, published: Published, within: float = inf) -> Schedule | None:
        """Return its schedule, if its cycle is `within` so many seconds."""
        problem = published.problem
        return generate(
            name="auto",
            microbatches=problem.microbatches,
            placement=self.placement,
            times=problem.times_of(self.placement),
            limits=problem.limits(len(self.placement) // problem.ranks),
            policy=self.policy,
            within=within,
        )


Maker = Named | Refilled | Generated


def _least(order: Sequence[Action]) -> int:
    """Return the most activations held by a rank with this order of F and I, each W done at once."""
    changes = (1 if action.kind == Kind.F else -1 for action in order)
    return max(itertools.accumulate(changes))
