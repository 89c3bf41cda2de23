"""The cuboid of ranks as process groups.

    tp      ranks that share every layer                 (same dp, pp)
    dp      ranks that hold the same weights             (same tp, pp)
    pp      ranks of one pipeline                        (same tp, dp)
    model   ranks that together hold the model once      (same dp)
    tie     ranks that hold the tied embedding           (same tp; all dp; first and last stage)
    edges   one group of two ranks for each directed neighbour pair of the pipeline; NCCL only

Every rank creates the groups it belongs to, axis by axis in the order above and edges sorted. That is one
common order of all groups, so creation cannot deadlock, and no rank takes part in the creation of groups that
it does not need. torch names such a group after its ranks and the number of groups the process has made, so a
rank that has no part in a tie or edge makes a group of itself instead: all ranks count alike. Each group is
used once before training: communicators made lazily in the middle of a schedule can deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from planner.layout import Coordinates, Layout

Edge = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One process group of this rank, and the rank's place in it; no group where the rank is alone."""

    ranks: tuple[int, ...]  # global ranks, by place
    rank: int
    group: dist.ProcessGroup | None = None

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return len(self.ranks)

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Sum `tensor` over the group, in place."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """This rank's place in the cuboid, and its process groups."""

    layout: Layout
    rank: int
    coordinates: Coordinates
    device: torch.device
    tp: Axis
    dp: Axis
    pp: Axis
    model: Axis
    tie: Axis | None  # None on ranks that hold no tied weight
    world: Axis
    edges: dict[Edge, dist.ProcessGroup] = field(default_factory=dict)  # by pipeline ranks (source, target)


def local_device(local_rank: int) -> torch.device:
    """Return the accelerator of this rank, or the CPU where there is none."""
    if torch.cuda.is_available() and dist.is_nccl_available():
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def backend_of(device: torch.device) -> str:
    """Return the torch.distributed backend for `device`."""
    return "nccl" if device.type == "cuda" else "gloo"


def build_mesh(
    layout: Layout,
    *,
    placement: Sequence[int],
    device: torch.device,
    edges: Iterable[Edge] = (),
    timeout_seconds: float = 600.0,
) -> Mesh:
    """Create this rank's groups of `layout` and use each once.

    `placement` tells the pipeline rank of every stage. `edges` are the (source, target) pairs of pipeline
    ranks that exchange messages. All ranks of the default group call this together.
    """
    rank = dist.get_rank()
    here = layout.coordinates(rank)
    timeout = timedelta(seconds=timeout_seconds)
    ends = sorted({placement[0], placement[-1]})

    def axis(members: Iterable[Coordinates]) -> Axis:
        ranks = tuple(layout.rank(member) for member in members)
        group = _group(ranks, timeout) if len(ranks) > 1 else None
        return Axis(ranks=ranks, rank=ranks.index(rank), group=group)

    tp = axis(here._replace(tp=i) for i in range(layout.tp))
    dp = axis(here._replace(dp=i) for i in range(layout.dp))
    pp = axis(here._replace(pp=i) for i in range(layout.pp))
    model = axis(here._replace(pp=i, tp=j) for i in range(layout.pp) for j in range(layout.tp))
    tie = axis(here._replace(pp=i, dp=j) for i in ends for j in range(layout.dp)) if here.pp in ends else None
    if tie is None and len(ends) * layout.dp > 1:
        _group((rank,), timeout)
    directed = {}
    for edge in sorted(set(edges)) if backend_of(device) == "nccl" else ():
        group = _group((pp.ranks[edge[0]], pp.ranks[edge[1]]) if here.pp in edge else (rank,), timeout)
        if here.pp in edge:
            directed[edge] = group
    everyone = tuple(range(dist.get_world_size()))
    world = Axis(ranks=everyone, rank=rank, group=dist.group.WORLD if len(everyone) > 1 else None)
    mesh = Mesh(
        layout=layout,
        rank=rank,
        coordinates=here,
        device=device,
        tp=tp,
        dp=dp,
        pp=pp,
        model=model,
        tie=tie,
        world=world,
        edges=directed,
    )
    _warm(mesh)
    return mesh


def _group(ranks: tuple[int, ...], timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(list(ranks), timeout=timeout, use_local_synchronization=True)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _warm(mesh: Mesh) -> None:
    """Use every group once, in the order of creation."""
    one = torch.ones(1, device=mesh.device)
    for axis in (mesh.world, mesh.tp, mesh.dp, mesh.pp, mesh.model, mesh.tie):
        if axis is not None:
            axis.all_reduce(one)
    for (source, _), group in mesh.edges.items():
        # A broadcast from the sender opens the direction that will be used.
        dist.broadcast(one, src=mesh.pp.ranks[source], group=group)
