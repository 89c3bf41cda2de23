"""What `auto` chooses from: named families, families refilled, patterns for a V, and generated schedules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from planner.schedules.action import Action, Kind, Schedule, new_action, v_placement
from planner.schedules.automatic.generate import Policy, generate
from planner.schedules.automatic.problem import Problem
from planner.schedules.family import Family, ScheduleError
from planner.schedules.fill import fill_weights
from planner.schedules.memory import peak_stage_activations
from planner.schedules.named import NAMED, build_family

_F, _I = Kind.F, Kind.I


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


def patterned(problem: Problem) -> tuple[Patterned, ...]:
    """Return the patterns for a V, where stages may lie on one."""
    on_a_v = problem.ranks > 1 and v_placement(problem.ranks) in problem.placements()
    return tuple(map(Patterned, (0.0, 0.3, 0.6, 0.9))) if on_a_v else ()


def unnamed(problem: Problem, *, thorough: bool) -> Iterator[Refilled | Patterned | Generated]:
    """Yield what makes further candidates; cheap and promising ones first."""
    yield from (Refilled(maker.family) for maker in named() if maker.family.split)
    yield from patterned(problem)
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
        limits = problem.limits(schedule.chunks)
        if problem.memory_limit is None:
            limits = peak_stage_activations(schedule)
        orders = []
        for row, limit in zip(schedule.actions, limits, strict=True):
            orders.append(
                [
                    cell if cell.kind == _F else new_action(Action, (_I, cell.stage, cell.microbatch))
                    for cell in row
                    if cell.kind != Kind.W
                ]
            )
            if _least(orders[-1]) > limit:
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
class Patterned:
    """A V whose steady state leaves no gap for these durations, each W where it finds one.

    `share` of the memory that the shortest way through the V would leave free is spent on letting every pass
    come later than it could: the more microbatches are under way, the less a step's ends wait.
    """

    share: float

    def __call__(self, published: Published, within: float = inf) -> Schedule | None:
        """Return its schedule, if it keeps the limit with a cycle `within` so many seconds."""
        from planner.schedules.automatic.v_pattern import find_pattern  # noqa: PLC0415 (imports numpy)

        problem, placement = published.problem, v_placement(published.problem.ranks)
        times, limits = problem.times_of(placement), problem.limits(2)
        pattern = find_pattern(times, problem.ranks)
        if pattern is not None and self.share:
            spare = min(limits[0], 4 * problem.ranks) * pattern.period - pattern.starts[-1]
            slack = self.share * spare / (4 * problem.ranks)
            pattern = find_pattern(times, problem.ranks, slack=slack) if slack > 0 else None
        if pattern is None:
            return None
        orders = _orders(pattern.starts, pattern.period, placement, problem.microbatches)
        if any(_least(order) > limit for order, limit in zip(orders, limits, strict=True)):
            return None
        return fill_weights(
            orders,
            name="auto",
            microbatches=problem.microbatches,
            placement=placement,
            times=times,
            limits=limits,
            within=within,
        )


def _orders(
    starts: Sequence[float], period: float, placement: Sequence[int], microbatches: int
) -> list[list[Action]]:
    """Return every rank's F and I in the order of time; microbatch k a period after k − 1."""
    stages = len(placement)
    cells = [(_F, stage) for stage in range(stages)] + [(_I, stage) for stage in reversed(range(stages))]
    timed: list[list[tuple[float, int, int]]] = [[] for _ in range(max(placement) + 1)]
    for position, ((_, stage), start) in enumerate(zip(cells, starts, strict=True)):
        timed[placement[stage]] += [(start + k * period, position, k) for k in range(microbatches)]
    return [[new_action(Action, (*cells[position], k)) for _, position, k in sorted(row)] for row in timed]


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


Maker = Named | Refilled | Patterned | Generated


def _least(order: Sequence[Action]) -> int:
    """Return the most activations held by a rank with this order of F and I, each W done at once."""
    changes = (1 if action.kind == Kind.F else -1 for action in order)
    return max(itertools.accumulate(changes))
