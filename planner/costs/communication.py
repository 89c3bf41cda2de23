"""Seconds of collectives and transfers between ranks: α-β costs per class of link.

A group along one axis has `degree` ranks, `stride` apart in the global order. Which links it crosses follows:

    stride 1, degree 8, 8 devices a node      all inside a node
    stride 8, degree 4                        one rank in each of four nodes; eight such groups share the NICs

A ring moves 2(n−1)/n of an all-reduced tensor over the slowest link it crosses; NCCL's trees cut the latency
between nodes to a logarithm. All functions take numbers or numpy arrays for degrees, strides and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.costs.flops import Number
from profiles.cluster import ClusterSpec, LinkKind

# Fraction of the wire speed that a large collective reaches (nccl-tests bus bandwidth over wire speed).
LINK_EFFICIENCY: dict[LinkKind, float] = {
    "nvlink": 0.82,
    "nvswitch": 0.77,
    "xgmi": 0.70,
    "pcie": 0.70,
    "shared_memory": 1.0,
    "infiniband": 0.92,
    "roce": 0.85,
    "efa": 0.75,
    "ethernet": 0.75,
    "unknown": 0.8,
}

# Starting a collective on all ranks: fitted to published runs; 4e-5 to 9e-5 on 2 to 8 A100 (vTrain@f8dda84).
START_SECONDS = 4.65e-05

LINK_EFFICIENCY_SOURCES: dict[LinkKind, str] = {
    "nvlink": "NVLink 2: 122 of 150 GB/s (GTC 2024 talk S62129)",
    "nvswitch": "NVLink 3: 232 of 300 GB/s, NVLink 4: 370 of 450 GB/s (GTC 2024 talk S62129)",
    "xgmi": "8 MI300X: 313 of 448 GB/s (ml-engineering@744d01e network)",
    "pcie": "PCIe 4.0: 24 of 31 GB/s (GTC 2024 talk S62129)",
    "shared_memory": "the link's own rate is a measured one",
    "infiniband": "8 × 200 Gb/s: 192 of 200 GB/s (GTC 2024 talk S62129)",
    "roce": "assumed",
    "efa": "nccl-tests on two p4de nodes (awsome-distributed-training@0edaf152)",
    "ethernet": "100 GbE TCP: 10 of 12.5 GB/s (GTC 2024 talk S62129)",
    "unknown": "assumed",
}


@dataclass(frozen=True, kw_only=True)
class Path:
    """What a group of ranks along one axis has between its members.

    `bytes_per_second` is the rate of the group's slowest ring link when all parallel groups communicate at
    once; `hop_seconds` the latency of one inner hop and `outer_hop_seconds` of a hop between nodes;
    `inner_ranks` of the `ranks` members share a node.
    """

    ranks: Number
    inner_ranks: Number
    bytes_per_second: Number
    hop_seconds: Number
    outer_hop_seconds: Number


def path(cluster: ClusterSpec, degree: Number, stride: Number) -> Path:
    """Return the links that a group of `degree` ranks, `stride` apart, communicates over."""
    degree, stride = np.asarray(degree, dtype=float), np.asarray(stride, dtype=float)
    rate = np.full(np.broadcast(degree, stride).shape, np.inf)
    hop = np.zeros_like(rate)
    outer_hop = np.zeros_like(rate)
    inside = np.ones_like(rate)  # members that the links so far join
    inner = None
    for link in cluster.links:
        span = float(link.span or cluster.devices)
        members = np.minimum(degree, np.maximum(1.0, span // stride))
        crossed = members > inside
        wire = link.bytes_per_second * LINK_EFFICIENCY[link.kind]
        # The ring leaves an inner island of `inside` members, all of whose ports serve it. In a mesh of
        # direct links, though, a longer ring has links of its own that lie idle in a shorter one.
        mesh = (
            inner is not None and link.kind == inner.kind and link.bytes_per_second > inner.bytes_per_second
        )
        available = wire * (1.0 if mesh else inside) / link.shared_by
        rate = np.where(crossed, available if mesh else np.minimum(rate, available), rate)
        inner = link
        first = crossed & (hop == 0)
        hop = np.where(first, link.latency_seconds, hop)
        outer_hop = np.where(crossed, link.latency_seconds, outer_hop)
        inside = np.maximum(inside, members)
    per_node = np.minimum(degree, np.maximum(1.0, cluster.devices_per_node // stride))
    return Path(
        ranks=degree,
        inner_ranks=per_node,
        bytes_per_second=rate,
        hop_seconds=hop,
        outer_hop_seconds=outer_hop,
    )


def _volume_seconds(route: Path, message_bytes: Number) -> Number:
    n = route.ranks
    return (n - 1) / n * message_bytes / route.bytes_per_second


def _ring_latency(route: Path) -> Number:
    nodes = route.ranks / route.inner_ranks
    return (route.ranks - nodes) * route.hop_seconds + (nodes - 1) * route.outer_hop_seconds


def all_reduce_seconds(route: Path, message_bytes: Number) -> Number:
    """Sum a tensor of `message_bytes` over the group; the better of ring and tree latency."""
    nodes = route.ranks / route.inner_ranks
    tree = 2 * (
        (route.inner_ranks - 1) * route.hop_seconds
        + np.ceil(np.log2(np.maximum(nodes, 1))) * route.outer_hop_seconds
    )
    latency = np.minimum(2 * _ring_latency(route), tree)
    volume = 2 * _volume_seconds(route, message_bytes)
    return np.where(route.ranks > 1, volume + latency + START_SECONDS, 0.0)


def all_gather_seconds(route: Path, message_bytes: Number, pieces: Number = 1) -> Number:
    """Gather `message_bytes` in total, in `pieces` calls; a reduce-scatter costs the same."""
    seconds = _volume_seconds(route, message_bytes) + pieces * (_ring_latency(route) + START_SECONDS)
    return np.where(route.ranks > 1, seconds, 0.0)


def send_seconds(route: Path, message_bytes: Number) -> Number:
    """Send `message_bytes` to the next rank of the group over its slowest link."""
    return np.where(route.ranks > 1, message_bytes / route.bytes_per_second + route.outer_hop_seconds, 0.0)
