"""How far a prediction may be off: the residuals of published runs like it.

`cuboid validate` over the whole collection of published runs gives measured over predicted step times; the
interval of a new estimate is that of the nearest kind of runs. Measured costs have residuals of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.costs.software import Software
from profiles.cluster import ClusterSpec


@dataclass(frozen=True, kw_only=True)
class Interval:
    """80 % of similar runs took between `low` and `high` times the predicted step time."""

    low: float
    high: float
    runs: int
    source: str

    def seconds(self, step_seconds: float) -> tuple[float, float]:
        """Return the interval around one prediction."""
        return self.low * step_seconds, self.high * step_seconds


MEASURED = Interval(low=0.9, high=1.1, runs=0, source="assumed for costs measured on the machine itself")
# 64 layouts on two ranks, 136 on four (`tests/benchmarks/closed_loop.py`), medians over predictions.
MEASURED_CPU = Interval(
    low=0.95, high=1.11, runs=200, source="every layout of a small model on the ranks of a two-core machine"
)
UNMEASURED_CPU = Interval(
    low=0.4,
    high=2.5,
    runs=0,
    source="assumed: a processor's constants without measurements; run `cuboid bench`",
)

# Kind of runs → 10th and 90th percentile of measured / predicted (`cuboid validate`, 1,105 published runs;
# left out is NeMo's one, whose configuration its collectors assumed).
RESIDUALS: dict[str, Interval] = {
    "flash, one node": Interval(low=0.95, high=1.09, runs=97, source="published runs, flash, one node"),
    "flash, several nodes": Interval(
        low=0.96, high=1.12, runs=86, source="published runs, flash, several nodes"
    ),
    "materialised, one node": Interval(
        low=0.94, high=1.09, runs=758, source="published runs, materialised, one node"
    ),
    "materialised, several nodes": Interval(
        low=0.92, high=1.16, runs=164, source="published runs, materialised, several nodes"
    ),
}


def interval(cluster: ClusterSpec, software: Software, *, measured: bool) -> Interval:
    """Return the residuals of the published runs that are most like this one."""
    if cluster.device.vendor == "cpu":
        return MEASURED_CPU if measured else UNMEASURED_CPU
    if measured:
        return MEASURED
    kind = "materialised" if not software.flash_attention else "flash"
    scale = "one node" if cluster.nodes == 1 else "several nodes"
    return RESIDUALS[f"{kind}, {scale}"]
