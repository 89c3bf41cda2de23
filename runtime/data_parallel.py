"""Data parallelism: every gradient summed over the ranks that hold the same weights, once per step.

Gradients live in flat buckets, one run of memory for many parameters, and `grad` of each parameter is a view
of its place. A bucket is summed without copying, and the sum of a stage starts when its last backward ends:

    rank 0   … B6  B7 │ reduce: bucket 0, bucket 1 ─────►       stage 0, REDUCE is the last entry
    rank 1   … B7 │ reduce ─────►  …                            stage 1 reduces while stage 0 still computes

Nothing divides by the number of ranks: the backward starts from 1 / (valid tokens of the global batch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from runtime.linear import gradient_dtype, zero_gradient
from runtime.mesh import Axis
from runtime.ties import Tie

BUCKET_BYTES = 25 << 20


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Some parameters with gradients of one dtype, and the flat tensor that holds their gradients."""

    parameters: tuple[nn.Parameter, ...]
    flat: Tensor

    def attach(self) -> None:
        """Set all gradients to zero, as views of the bucket."""
        self.flat.zero_()
        offset = 0
        for parameter in self.parameters:
            parameter.grad = self.flat[offset : offset + parameter.numel()].view(parameter.shape)
            offset += parameter.numel()


def make_buckets(parameters: Iterable[nn.Parameter], *, limit_bytes: int = BUCKET_BYTES) -> list[Bucket]:
    """Fill buckets of up to `limit_bytes`, last parameters first, as a backward finishes them."""
    groups: list[list[nn.Parameter]] = []
    filled = 0
    for parameter in reversed(list(parameters)):
        dtype = gradient_dtype(parameter)
        size = parameter.numel() * dtype.itemsize
        if not groups or gradient_dtype(groups[-1][0]) != dtype or filled + size > limit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(parameter)
        filled += size
    return [
        Bucket(
            parameters=tuple(group),
            flat=torch.empty(
                sum(p.numel() for p in group), dtype=gradient_dtype(group[0]), device=group[0].device
            ),
        )
        for group in groups
    ]


class GradientReducer:
    """Sums gradients stage by stage over dp; a tied weight at the end, over its own ranks.

    With one rank in `axis`, gradients stay where the backward puts them: nothing is copied or sent.
    """

    def __init__(
        self,
        stages: Mapping[int, Iterable[nn.Parameter]],
        *,
        axis: Axis,
        tie: Tie | None = None,
        limit_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._axis = axis
        self._tie = tie
        self._parameters = {
            stage: [p for p in held if tie is None or p is not tie.parameter]
            for stage, held in stages.items()
        }
        self._buckets = {
            stage: make_buckets(held, limit_bytes=limit_bytes) if axis.size > 1 else []
            for stage, held in self._parameters.items()
        }
        self._works: dict[int, list[dist.Work]] = {stage: [] for stage in stages}

    def begin_step(self) -> None:
        """Clear all gradients."""
        if self._tie is not None:
            self._tie.parameter.grad = None
        for stage in self._parameters:
            self.clear(stage)

    def clear(self, stage: int) -> None:
        """Clear the gradients of `stage`."""
        for parameter in self._parameters[stage]:
            parameter.grad = None
        for bucket in self._buckets[stage]:
            bucket.attach()

    def start(self, stage: int) -> None:
        """Start summing the gradients of `stage`, which are final."""
        for bucket in self._buckets[stage]:
            work = dist.all_reduce(bucket.flat, group=self._axis.group, async_op=True)
            assert work is not None
            self._works[stage].append(work)

    def finish(self) -> None:
        """Wait for all sums; a parameter that no microbatch used has a gradient of zero."""
        if self._tie is not None:
            self._tie.reduce()
        for stage in self._parameters:
            self.finish_stage(stage)

    def finish_stage(self, stage: int) -> None:
        """Wait for the sums of `stage`."""
        while self._works[stage]:
            self._works[stage].pop(0).wait()
        for parameter in self._parameters[stage]:
            zero_gradient(parameter)
