"""Data parallelism: every gradient summed over the ranks that hold the same weights, once per step.

Gradients live in flat buckets, one run of memory for many parameters, and `grad` of each parameter is a view
of its place. A bucket is summed without copying, as soon as the last backward has filled it; the buckets
follow the order in which a backward finishes parameters, and all ranks send them in that one order:

    B6 │ B7: head … block 9 … block 5 … block 0 │ REDUCE
                  bucket 0 ─────►                             what a backward adds to each parameter is
                            bucket 1 ─────►                   learned in the first step; a gradient added
                                        bucket 2 ─────►       to a bucket already sent is an error

Nothing divides by the number of ranks: the backward starts from 1 / (valid tokens of the global batch).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from profiles.gradient_buckets import MOST_BYTES, bucket_bytes
from runtime.linear import gradient_dtype, zero_gradient
from runtime.mesh import Axis
from runtime.ties import Tie


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


def make_buckets(parameters: Iterable[nn.Parameter], *, limit_bytes: int = MOST_BYTES) -> list[Bucket]:
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


class _StageBuckets:
    """The buckets of one stage on their way: filled by the last backward, summed in order."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, axis: Axis, limit_bytes: int | None) -> None:
        held = list(parameters)
        total = sum(p.numel() * gradient_dtype(p).itemsize for p in held)
        self.buckets = make_buckets(held, limit_bytes=limit_bytes or bucket_bytes(total))
        self._axis = axis
        self._place = {id(p): i for i, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._usual: Counter[int] | None = None  # additions that a last backward makes to each bucket
        self._seen: Counter[int] = Counter()
        self._watching = False
        self._sent = 0
        self._works: list[dist.Work] = []
        for parameter in held:  # what reaches a parameter through autograd, and not through our layers
            parameter.register_post_accumulate_grad_hook(self.added)  # type: ignore[no-untyped-call]

    def last(self) -> None:
        """Watch the last backward; everything that it will not touch is final now."""
        self._watching, self._sent = True, 0
        self._seen.clear()
        self._send_filled()

    def added(self, parameter: Tensor) -> None:
        """Note a gradient added to `parameter`; send what is complete.

        Raises:
            RuntimeError: when the gradients of `parameter` are already being summed.
        """
        place = self._place.get(id(parameter))
        if not self._watching or place is None:
            return
        if place < self._sent:
            raise RuntimeError(
                "a gradient was added after its bucket had been sent; the backward has changed"
            )
        self._seen[place] += 1
        self._send_filled()

    def start(self) -> None:
        """Send what is left."""
        if not self._watching:
            self._sent = 0
        elif self._usual is None:
            self._usual = Counter(self._seen)
        self._watching = False
        self._send(len(self.buckets))

    def finish(self) -> None:
        """Wait for all sums."""
        while self._works:
            self._works.pop(0).wait()

    def _send_filled(self) -> None:
        if self._usual is None:
            return
        until = self._sent
        while until < len(self.buckets) and self._seen[until] >= self._usual[until]:
            until += 1
        self._send(until)

    def _send(self, until: int) -> None:
        for bucket in self.buckets[self._sent : until]:
            work = dist.all_reduce(bucket.flat, group=self._axis.group, async_op=True)
            assert work is not None
            self._works.append(work)
        self._sent = until


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
        limit_bytes: int | None = None,
    ) -> None:
        self._tie = tie
        self._parameters = {
            stage: [p for p in held if tie is None or p is not tie.parameter]
            for stage, held in stages.items()
        }
        self._buckets = {
            stage: _StageBuckets(held if axis.size > 1 else (), axis=axis, limit_bytes=limit_bytes)
            for stage, held in self._parameters.items()
        }

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
        for bucket in self._buckets[stage].buckets:
            bucket.attach()

    def last(self, stage: int) -> Callable[[Tensor], None] | None:
        """Begin the last backward of `stage`; return what to tell of each parameter it adds a gradient to."""
        buckets = self._buckets[stage]
        if not buckets.buckets:
            return None
        buckets.last()
        return buckets.added

    def start(self, stage: int) -> None:
        """Start summing what is left of the gradients of `stage`, which are final."""
        self._buckets[stage].start()

    def finish(self) -> None:
        """Wait for all sums; a parameter that no microbatch used has a gradient of zero."""
        if self._tie is not None:
            self._tie.reduce()
        for stage in self._parameters:
            self.finish_stage(stage)

    def finish_stage(self, stage: int) -> None:
        """Wait for the sums of `stage`."""
        self._buckets[stage].finish()
        for parameter in self._parameters[stage]:
            zero_gradient(parameter)
