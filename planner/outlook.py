"""How robust a choice is: less memory, slower links, slower devices.

Pareto front    the fastest layout under ever less memory, until nothing fits
sensitivity     the search repeated with links −20 % and with efficiency −10 %
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.layout import Layout
from planner.query import Query
from planner.search import RankedPlan
from profiles.cluster import ClusterSpec
from profiles.errors import InfeasibleError

LINK_LOSS = 0.2
EFFICIENCY_LOSS = 0.1
LESS_MEMORY = 0.85  # of the peak of the last point
MOST_POINTS = 12


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One changed condition: what the chosen layout takes then, and what is best then."""

    condition: str
    chosen_step_seconds: float
    best: RankedPlan
    same: bool

    @property
    def regret(self) -> float:
        """Fraction by which the chosen layout is then slower than the best one."""
        return max(0.0, self.chosen_step_seconds / self.best.estimate.step_seconds - 1.0)


def pareto(query: Query, best: RankedPlan, *, points: int = MOST_POINTS) -> list[RankedPlan]:
    """Return the fastest layouts under ever less memory, from the fastest to the leanest."""
    front = [best]
    while len(front) < points:
        memory = int(front[-1].estimate.memory.peak_bytes * LESS_MEMORY)
        try:
            leaner = replace(query.with_memory(memory), top=1, effort=query.effort // 3).run().best
        except InfeasibleError:
            break
        front.append(leaner)
    kept: list[RankedPlan] = []
    for point in reversed(front):
        # A leaner point that is as fast makes the fuller one pointless.
        if not kept or point.estimate.step_seconds < kept[-1].estimate.step_seconds:
            kept.append(point)
    return [replace(point, rank=i + 1) for i, point in enumerate(reversed(kept))]


def sensitivity(query: Query, best: RankedPlan) -> list[Shift]:
    """Repeat the search under changed conditions; without measured costs, which would hide the change."""
    conditions = [
        (f"link {link.name} −{LINK_LOSS:.0%}", _slow_link(query.cluster, number))
        for number, link in enumerate(query.cluster.links)
    ]
    conditions.append((f"compute efficiency −{EFFICIENCY_LOSS:.0%}", _slow_device(query.cluster)))
    shifts = []
    for name, cluster in conditions:
        changed = replace(query, cluster=cluster, costs=None, top=1, effort=query.effort // 3)
        found = changed.run().best
        chosen = _price(changed, best.layout)
        if chosen < found.estimate.step_seconds:
            # The shorter search missed what is known already.
            estimate = best.estimate.model_copy(update={"step_seconds": chosen})
            found = replace(found, layout=best.layout, estimate=estimate)
        shifts.append(
            Shift(
                condition=name,
                chosen_step_seconds=chosen,
                best=found,
                same=degrees(found.layout) == degrees(best.layout),
            )
        )
    return shifts


def degrees(layout: Layout) -> tuple[int, int, int, int, str, int]:
    """Return what people mean by the same layout."""
    return (layout.tp, layout.pp, layout.dp, layout.microbatch, layout.schedule, layout.chunks)


def _price(query: Query, layout: Layout) -> float:
    from planner.costs import price  # noqa: PLC0415 (only here)

    return price(query.model, query.cluster, layout, costs=query.costs).step_seconds


def _slow_link(cluster: ClusterSpec, number: int) -> ClusterSpec:
    links = list(cluster.links)
    slower = links[number].bytes_per_second * (1 - LINK_LOSS)
    links[number] = links[number].model_copy(update={"bytes_per_second": slower})
    return cluster.model_copy(update={"links": tuple(links)})


def _slow_device(cluster: ClusterSpec) -> ClusterSpec:
    device = cluster.device
    kept = 1 - EFFICIENCY_LOSS
    update = {name: getattr(device, name) * kept for name in ("gemm_efficiency", "attention_efficiency")}
    return cluster.model_copy(update={"device": device.model_copy(update=update)})
