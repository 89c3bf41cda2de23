"""What is asked of a search, so that it can be asked again of another cluster or with other pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from planner.search import EFFORT, SearchResult, search
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import CostTable


@dataclass(frozen=True, kw_only=True)
class Query:
    """The arguments of `planner.search.search`."""

    model: ModelSpec
    cluster: ClusterSpec
    devices: int
    global_batch: int
    costs: CostTable | None = None
    pins: Mapping[str, Any] = field(default_factory=dict)
    top: int = 10
    target: str = "cuboid"
    idle: bool = True
    effort: int = EFFORT

    def run(self) -> SearchResult:
        """Search.

        Raises:
            ConfigError: when a pin is impossible.
            InfeasibleError: when no layout runs.
        """
        return search(
            self.model,
            self.cluster,
            devices=self.devices,
            global_batch=self.global_batch,
            costs=self.costs,
            pins=self.pins,
            top=self.top,
            target=self.target,
            idle=self.idle,
            effort=self.effort,
        )

    def pinned(self, pins: Mapping[str, Any]) -> Query:
        """Return the query for the best layout with more pins."""
        return replace(self, pins=dict(self.pins) | dict(pins), top=1, effort=self.effort // 3)

    def with_memory(self, memory_bytes: int) -> Query:
        """Return the query for devices of another memory size."""
        device = self.cluster.device.model_copy(update={"memory_bytes": memory_bytes})
        return replace(self, cluster=self.cluster.model_copy(update={"device": device}))
