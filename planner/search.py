"""Layouts → ranked plans: bounds for all, prices for those that could win.

The frontier hands layouts out in the order of their expected times; each is completed, priced by simulating
its schedule (`planner.contest`), and ranked (`planner.ranking`). Once every remaining lower bound is at
least the fastest price, that is proved, each layout with the layers per stage that `planner.assemble` gives
it: balanced for a full pipeline, which with two or three microbatches may not be the best. Among the layouts
that tie with the fastest, the plainest is chosen. Where simulating them all would take too long, the search
stops early and says how far from a proof.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.contest import Contest
from planner.costs import MODERN, Software
from planner.estimate import Estimate
from planner.frontier import Frontier
from planner.layout import Layout
from planner.pins import Pins
from planner.rank_bounds import Pricing
from planner.ranking import Row, rank_rows
from planner.space import build_space
from planner.targets import find_target
from planner.verdict import limits
from profiles.cluster import ClusterSpec
from profiles.errors import InfeasibleError
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import CostTable

EFFORT = 30_000  # simulated actions, about a tenth of a second


@dataclass(frozen=True, kw_only=True)
class RankedPlan:
    """One layout of the ranked list, counted from 1; `limited_by` says what keeps it from being faster.

    `alike` differ from it in schedule, chunks or rank order, and gain nothing by it.
    """

    rank: int
    layout: Layout
    estimate: Estimate
    limited_by: str = ""
    alike: tuple[RankedPlan, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    `searched` layouts were bounded, `priced` of them simulated; `infeasible` counts those refused, by reason.
    No layout can be faster than the fastest priced by more than the fraction `gap` (0: that is proved), and
    the best ties with the fastest. `others` are further layouts that were priced and fit.
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
        measured={cost.precision for cost in costs.layers} if costs else (),
    )
    pricing = Pricing(model=model, cluster=cluster, software=software, costs=costs)
    frontier = Frontier(space, pricing)
    contest = Contest(frontier=frontier, rows=top, effort=effort)
    contest.run()
    if not contest.ranked:
        raise InfeasibleError(_nothing_fits(model, devices, frontier.infeasible, target))
    plans = tuple(_ranked(i + 1, row, cluster) for i, row in enumerate(rank_rows(contest.ranked)))
    return SearchResult(
        plans=plans[:top],
        others=tuple(plan for row in plans[:top] for plan in row.alike) + plans[top:],
        searched=space.count(),
        priced=contest.priced,
        infeasible={reason: count for reason, count in frontier.infeasible.items() if count},
        gap=contest.gap,
        seconds=time.perf_counter() - started,
    )


def _ranked(rank: int, row: Row, cluster: ClusterSpec) -> RankedPlan:
    alike = tuple(
        RankedPlan(rank=rank, layout=layout, estimate=estimate, limited_by=limits(estimate, cluster))
        for layout, estimate in row.alike
    )
    layout, estimate = row.chosen
    limited_by = limits(estimate, cluster)
    return RankedPlan(rank=rank, layout=layout, estimate=estimate, limited_by=limited_by, alike=alike)


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
