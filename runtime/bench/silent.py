"""Process groups whose collectives move nothing, for timing the computation around them.

A group of this rank alone does: an all-reduce in it is the identity. Gathering and scattering check that
shapes fit the group's size, so those run on torch's `fake` backend, made for dry runs of large jobs.
"""

from __future__ import annotations

import torch.distributed as dist

from runtime.bench.points import LayerPoint
from runtime.bench.ranks import Place


class SilentGroups:
    """The silent groups of one rank, each made once, by all ranks in the same order."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._made: dict[int, dist.ProcessGroup | None] = {}

    def group(self, point: LayerPoint) -> dist.ProcessGroup | None:
        """Return the group for the collectives of `point`. Every rank must call it."""
        size = point.tp if point.sequence_parallel else 1
        if size not in self._made:
            if size > 1:
                # The import registers the backend.
                import torch.testing._internal.distributed.fake_pg  # noqa: F401, PLC0415
            for first in range(0, self._place.ranks, size):
                members = list(range(first, first + size))
                group = dist.new_group(members, backend="fake" if size > 1 else None)
                if self._place.rank in members:
                    self._made[size] = group
        return self._made[size]
