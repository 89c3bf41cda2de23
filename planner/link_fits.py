"""Latency and bandwidth behind measured collectives, and how well the two numbers tell the rest.

    seconds ≈ latency + message_bytes / rate          (the α–β model; Hockney 1994)

fitted to relative errors, since sizes span many orders of magnitude, with neither part negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.costs import Collective, CollectiveCost, CostTable


@dataclass(frozen=True, kw_only=True)
class LinkFit:
    """The fit of one collective on one shape of groups.

    `bytes_per_second` is message bytes over time at large sizes; `residual` the root mean square of the
    relative errors, `worst` the largest of them.
    """

    operation: Collective
    ranks: int
    groups: int
    stride: int
    latency_seconds: float
    bytes_per_second: float
    residual: float
    worst: float

    @property
    def wire_bytes_per_second(self) -> float:
        """What each rank sends per second in a ring: comparable with a link's bandwidth."""
        share = (self.ranks - 1) / self.ranks
        factor = {
            "all_reduce": 2 * share,
            "reduce_scatter": share,
            "all_gather": self.ranks - 1.0,
            "send_recv": 1.0,
        }
        return self.bytes_per_second * factor[self.operation]

    def seconds(self, message_bytes: float) -> float:
        """Return the fitted time of a message."""
        return self.latency_seconds + message_bytes / self.bytes_per_second


def fit_links(costs: CostTable) -> tuple[LinkFit, ...]:
    """Fit every collective and group shape with at least two sizes."""
    shapes: dict[tuple[Collective, int, int, int], list[CollectiveCost]] = {}
    for cost in costs.collectives:
        shapes.setdefault((cost.operation, cost.ranks, cost.groups, cost.stride), []).append(cost)
    return tuple(
        _fit(points) for points in shapes.values() if len({point.message_bytes for point in points}) > 1
    )


def _fit(points: Sequence[CollectiveCost]) -> LinkFit:
    sizes = np.array([float(point.message_bytes) for point in points])
    seconds = np.array([point.seconds for point in points])
    latency, per_byte = _least_squares(sizes, seconds)
    errors = (latency + per_byte * sizes) / seconds - 1
    first = points[0]
    return LinkFit(
        operation=first.operation,
        ranks=first.ranks,
        groups=first.groups,
        stride=first.stride,
        latency_seconds=latency,
        bytes_per_second=1.0 / per_byte,
        residual=float(np.sqrt(np.mean(errors**2))),
        worst=float(np.abs(errors).max()),
    )


def _least_squares(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Return (latency, seconds per byte), both at least nearly zero, of the least relative error."""
    rows = np.stack([1 / seconds, sizes / seconds], axis=1)
    (latency, per_byte), *_ = np.linalg.lstsq(rows, np.ones(len(seconds)), rcond=None)
    if per_byte <= 0:  # nothing but latency: sizes too small to tell a rate
        return float(np.sum(1 / seconds) / np.sum(1 / seconds**2)), 1e-15
    if latency < 0:
        return 0.0, float(np.sum(sizes / seconds) / np.sum((sizes / seconds) ** 2))
    return float(latency), float(per_byte)
