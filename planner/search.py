"""Layouts → ranked plans."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planner.costs import price
from planner.layout import Layout
from planner.pins import Pins
from planner.plan import Estimate
from planner.schedules.family import ScheduleError
from planner.space import MIXED, build_space
from planner.targets import find_target
from planner.verdict import limits
from profiles.cluster import ClusterSpec
from profiles.costs import CostTable
from profiles.errors import ConfigError, InfeasibleError
from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class RankedPlan:
    """One layout of the ranked list, counted from 1; `limited_by` says what keeps it from being faster."""

    rank: int
    layout: Layout
    estimate: Estimate
    limited_by: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found; `infeasible` counts the layouts that cannot run, by reason."""

    plans: tuple[RankedPlan, ...]
    searched: int
    infeasible: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

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
    )
    infeasible: Counter[str] = Counter()
    priced: list[tuple[Layout, Estimate]] = []
    for columns in space.expand(np.arange(len(space.skeletons))):
        for row in range(len(columns)):
            if columns.recompute[row] == MIXED:
                continue
            layout = space.layout(columns, row)
            try:
                estimate = price(model, cluster, layout, costs=costs)
            except ScheduleError:
                infeasible["schedule"] += 1
                continue
            except ConfigError:
                infeasible["not measured"] += 1
                continue
            if estimate.fits:
                priced.append((layout, estimate))
            else:
                infeasible["memory"] += 1
    if not priced:
        raise InfeasibleError(f"no layout of {model.name} fits {devices} devices: {dict(infeasible)}")
    priced.sort(key=lambda pair: (pair[1].step_seconds, pair[1].memory.peak_bytes))
    plans = tuple(
        RankedPlan(rank=i + 1, layout=layout, estimate=estimate, limited_by=limits(estimate, cluster))
        for i, (layout, estimate) in enumerate(priced[:top])
    )
    return SearchResult(
        plans=plans,
        searched=space.count(),
        infeasible=dict(infeasible),
        seconds=time.perf_counter() - started,
    )
