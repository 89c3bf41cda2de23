"""Which rank runs where: coordinate → rank → node → device, and which axis crosses which link.

Ranks fill nodes in order, so rank r runs on device r mod d of node r div d, d ranks to a node. The rank order
of the layout decides which axis stays inside a node.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layout import Coordinates, Layout
from planner.plan import Plan
from profiles.cluster import ClusterSpec
from profiles.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """Where one rank runs; nodes and devices are counted from 0 in the allocation's order."""

    rank: int
    coordinates: Coordinates
    node: int
    device: int


@dataclass(frozen=True, kw_only=True)
class AxisLink:
    """The slowest link that the groups of one axis cross, and how many nodes one group touches."""

    axis: str
    degree: int
    link: str
    nodes_per_group: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """All ranks of a job on the nodes it asks for."""

    nodes: int
    ranks_per_node: int
    ranks: tuple[RankPlace, ...]
    axes: tuple[AxisLink, ...]


def place(plan: Plan) -> Placement:
    """Place the ranks of `plan` on whole nodes.

    Raises:
        ConfigError: when the ranks do not fill the nodes they need.
    """
    per_node = plan.cluster.devices_per_node
    world = plan.layout.world_size
    nodes = -(-world // per_node)
    ranks_per_node = min(world, per_node)
    if nodes * ranks_per_node != world:
        raise ConfigError(
            f"layout: {world} ranks do not fill nodes of {per_node} devices;"
            f" use a multiple of {per_node}, such as {nodes * per_node}"
        )
    ranks = tuple(
        RankPlace(
            rank=rank,
            coordinates=plan.layout.coordinates(rank),
            node=rank // ranks_per_node,
            device=rank % ranks_per_node,
        )
        for rank in range(world)
    )
    axes = tuple(
        _axis_link(plan.layout, plan.cluster, axis, ranks_per_node)
        for axis in plan.layout.rank_order.split("-")
    )
    return Placement(nodes=nodes, ranks_per_node=ranks_per_node, ranks=ranks, axes=axes)


def _axis_link(layout: Layout, cluster: ClusterSpec, axis: str, ranks_per_node: int) -> AxisLink:
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank in range(layout.world_size):
        place_of_rank = layout.coordinates(rank)._asdict()
        del place_of_rank[axis]
        groups.setdefault(tuple(place_of_rank.values()), []).append(rank)
    degree = len(next(iter(groups.values())))
    nodes = max(len({rank // ranks_per_node for rank in group}) for group in groups.values())
    if degree == 1:
        return AxisLink(axis=axis, degree=1, link="none", nodes_per_group=1)
    devices = [[_device(rank, ranks_per_node, cluster) for rank in group] for group in groups.values()]
    for link in cluster.links:
        span = link.span or cluster.devices
        if all(group[0] // span == group[-1] // span for group in devices):
            return AxisLink(axis=axis, degree=degree, link=link.name, nodes_per_group=nodes)
    return AxisLink(axis=axis, degree=degree, link=cluster.links[-1].name, nodes_per_group=nodes)


def _device(rank: int, ranks_per_node: int, cluster: ClusterSpec) -> int:
    return rank // ranks_per_node * cluster.devices_per_node + rank % ranks_per_node
