"""What was measured against what the presets (or the probe) say: sentences and ratios."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from planner.costs.communication import LINK_EFFICIENCY, path
from planner.link_fits import fit_links
from profiles.cluster import ClusterSpec, LinkSpec, Precision
from profiles.costs import CostTable
from profiles.units import format_count

ASSUMED = "assumed until"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One rate as measured and as the cluster's description has it."""

    what: str
    measured_per_second: float
    expected_per_second: float
    unit: str
    source: str

    @property
    def ratio(self) -> float:
        """Measured over expected."""
        return self.measured_per_second / self.expected_per_second

    def sentence(self) -> str:
        """Say it."""
        return (
            f"{self.what} reaches {self.ratio:.0%} of the expected rate:"
            f" {format_count(self.measured_per_second, self.unit)} of"
            f" {format_count(self.expected_per_second, self.unit)} ({self.source})"
        )


def compare_with(costs: CostTable, cluster: ClusterSpec) -> tuple[Comparison, ...]:
    """Compare a cost table with the cluster it was measured on, or with a preset of it.

    What the probe could only assume until something is measured is no yardstick and left out.
    """
    return tuple(one for one in _comparisons(costs, cluster) if ASSUMED not in one.source)


def _comparisons(costs: CostTable, cluster: ClusterSpec) -> Iterator[Comparison]:
    device = cluster.device
    precision: Precision = costs.layers[0].precision if costs.layers else "fp32"
    peak = device.flops_per_second.get(precision)
    if costs.matmul_flops_per_second and peak:
        yield Comparison(
            what=f"Matrix product ({precision})",
            measured_per_second=costs.matmul_flops_per_second,
            expected_per_second=peak,
            unit="FLOP/s",
            source=f"{device.name}: {device.sources.get('flops_per_second', 'preset')}",
        )
    for fit in fit_links(costs):
        link = _link(cluster, fit.ranks, fit.stride)
        yield Comparison(
            what=f"{fit.operation} over {fit.groups} × {fit.ranks} ranks",
            measured_per_second=fit.wire_bytes_per_second,
            expected_per_second=_nominal_rate(cluster, fit.ranks, fit.stride),
            unit="B/s",
            source=f"{link.name}: {link.source}",
        )


def _nominal_rate(cluster: ClusterSpec, ranks: int, stride: int) -> float:
    """Return the rate of a ring's slowest link, as the planner has it but for what links lose in practice.

    A ring that leaves a node has the ports of all its members there.
    """
    nominal = tuple(
        link.model_copy(update={"bytes_per_second": link.bytes_per_second / LINK_EFFICIENCY[link.kind]})
        for link in cluster.links
    )
    nodes = max(cluster.nodes, math.ceil(ranks * stride / cluster.devices_per_node))
    wide = cluster.model_copy(update={"links": nominal, "nodes": nodes})
    return float(path(wide, ranks, stride).bytes_per_second)


def _link(cluster: ClusterSpec, ranks: int, stride: int) -> LinkSpec:
    """The innermost class of links that joins ranks so far apart."""
    extent = (ranks - 1) * stride + 1
    for link in cluster.links:
        if link.span is None or link.span >= extent:
            return link
    return cluster.links[-1]
