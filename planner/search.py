"""Layouts → ranked plans: bounds for all, prices for those that could win.

The frontier hands layouts out in the order of their expected times; each is completed, priced by simulating
its schedule, and ranked. Once the k-th best price is no more than every remaining lower bound, the k best are
proved. Where simulating them all would take too long, the search stops early and says how far from a proof.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.assemble import assemble, may_fit
from planner.costs import MODERN, Software, price
from planner.frontier import Frontier
from planner.layout import Layout
from planner.pins import Pins
from planner.plan import Estimate
from planner.rank_bounds import Pricing
from planner.schedules.families import find_family
from planner.schedules.family import ScheduleError
from planner.space import build_space
from planner.targets import find_target
from planner.verdict import limits
from profiles.cluster import ClusterSpec
from profiles.costs import CostTable
from profiles.errors import ConfigError, InfeasibleError
from profiles.model import ModelSpec

EFFORT = 60_000  # simulated actions, about a third of a second
OVERHEAD = 1_000  # of one price, in simulated actions


@dataclass(frozen=True, kw_only=True)
class RankedPlan:
    """One layout of the ranked list, counted from 1; `limited_by` says what keeps it from being faster."""

    rank: int
    layout: Layout
    estimate: Estimate
    limited_by: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    `searched` layouts were bounded, `priced` of them simulated; `infeasible` counts those refused, by reason.
    No layout can be faster than the best by more than the fraction `gap` (0: the best is proved).
    `others` are further layouts that were priced and fit.
    """

    plans: tuple[RankedPlan, ...]
    searched: int
    priced: int = 0
    infeasible: Mapping[str, int] = field(default_factory=dict)
    gap: float = 0.0
    seconds: float = 0.0
    others: tuple[RankedPlan, ...] = ()

    @property
    def best(self) -> RankedPlan:
        """The chosen plan."""
        return self.plans[0]


def search(
    model: ModelSpec,
    cluster: ClusterSpec,
    *,
    devices: int,
    global_batch: int,
    costs: CostTable | None = None,
    pins: Mapping[str, Any] | None = None,
    top: int = 10,
    target: str = "cuboid",
    idle: bool = True,
    software: Software = MODERN,
    effort: int = EFFORT,
) -> SearchResult:
    """Return the `top` fastest layouts of `model` on up to `devices` devices.

    Raises:
        ConfigError: when a pin is impossible.
        InfeasibleError: when no layout runs; the message counts the reasons.
    """
    started = time.perf_counter()
    space = build_space(
        model,
        cluster,
        devices=devices,
        global_batch=global_batch,
        target=find_target(target),
        pins=Pins(values=dict(pins or {})),
        idle=idle,
        selective=not software.flash_attention,
    )
    pricing = Pricing(model=model, cluster=cluster, software=software, costs=costs)
    frontier = Frontier(space, pricing)
    contest = _Contest(frontier=frontier, top=top, effort=effort)
    contest.run()
    if not contest.ranked:
        raise InfeasibleError(_nothing_fits(model, devices, frontier.infeasible, target))
    plans = tuple(
        RankedPlan(rank=i + 1, layout=layout, estimate=estimate, limited_by=limits(estimate, cluster))
        for i, (layout, estimate) in enumerate(contest.ranked)
    )
    return SearchResult(
        plans=plans[:top],
        others=plans[top:],
        searched=space.count(),
        priced=contest.priced,
        infeasible={reason: count for reason, count in frontier.infeasible.items() if count},
        gap=contest.gap,
        seconds=time.perf_counter() - started,
    )


@dataclass
class _Contest:
    """Prices candidates, the most promising first, until the best `top` are proved or the effort is spent."""

    frontier: Frontier
    top: int
    effort: int
    ranked: list[tuple[Layout, Estimate]] = field(default_factory=list)
    priced: int = 0
    gap: float = 0.0

    def run(self) -> None:
        """Price until nothing to come can be among the best `top`."""
        seen: set[Layout] = set()
        spent = 0
        for candidate in self.frontier:
            layout = assemble(self.frontier.space, self.frontier.pricing, candidate)
            if layout is None:
                self.frontier.infeasible["memory"] += 1
                continue
            if layout in seen:
                continue
            seen.add(layout)
            if not may_fit(self.frontier.pricing, layout):
                self.frontier.infeasible["memory"] += 1
                continue
            self._price(layout)
            spent += OVERHEAD + actions(layout)
            enough = spent > self.effort and self.ranked
            if enough or self.frontier.least_bound >= self._limit():
                break
        if self.ranked:
            self.gap = max(0.0, 1.0 - self.frontier.least_bound / self.ranked[0][1].step_seconds)

    def _limit(self) -> float:
        """The price that a further layout has to beat."""
        if len(self.ranked) < self.top:
            return float("inf")
        return self.ranked[self.top - 1][1].step_seconds

    def _price(self, layout: Layout) -> None:
        space, pricing = self.frontier.space, self.frontier.pricing
        try:
            estimate = price(
                space.model, space.cluster, layout, costs=pricing.costs, software=pricing.software
            )
        except ScheduleError:
            self.frontier.infeasible["schedule"] += 1
            return
        except ConfigError:
            self.frontier.infeasible["not measured"] += 1
            return
        self.priced += 1
        if not estimate.fits:
            self.frontier.infeasible["memory"] += 1
            return
        self.ranked.append((layout, estimate))
        self.ranked.sort(key=lambda pair: (pair[1].step_seconds, pair[1].memory.peak_bytes))


def actions(layout: Layout) -> int:
    """Return about how many actions are simulated to price `layout`; long schedules are simulated in part."""
    per_microbatch = layout.stages * (3 if find_family(layout.schedule).split else 2)
    return per_microbatch * min(layout.microbatches, max(1, 5 * layout.pp))


def _nothing_fits(model: ModelSpec, devices: int, infeasible: Counter[str], target: str) -> str:
    reasons = ", ".join(f"{count:,} for {reason}" for reason, count in infeasible.most_common() if count)
    return (
        f"no layout of {model.name} runs on {devices} devices (refused: {reasons or 'none exists'});"
        " use more devices, a shorter sequence or a smaller global batch"
        + (
            f", or what another framework can run: --target any instead of {target}"
            if target != "any"
            else ""
        )
    )
