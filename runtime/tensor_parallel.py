"""Tensor parallelism: layers split over ranks that together hold one copy of the model.

Each half of a block (attention, MLP) is one parallel region (Shoeybi et al. 2019, arXiv:1909.08053):

    hidden ──► enter ──► column-parallel ──► local work ──► row-parallel ──► leave ──► hidden
               forward: nothing                                        forward: all-reduce
               backward: all-reduce                                    backward: nothing

so a region costs one all-reduce in each direction. A column-parallel linear is a plain `Linear` with fewer
outputs; a row-parallel one has fewer inputs, and adds its bias after the reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from runtime.linear import Linear, add_bias, apply, linear


@dataclass(frozen=True, kw_only=True)
class TensorParallel:
    """The ranks that share each layer: their process group, our index and how many they are."""

    group: dist.ProcessGroup | None = None
    rank: int = 0
    size: int = 1

    def slice(self, length: int) -> range:
        """Return the indices of our share of `length`: equal shares, the last ones shorter or empty."""
        share = -(-length // self.size)
        return range(min(self.rank * share, length), min((self.rank + 1) * share, length))


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """How one parameter lies over the tensor-parallel ranks.

    `dim` is the dimension that is split (`TensorParallel.slice` says where), None when every rank holds all
    of it. `shape` is that of the whole parameter. With `partial`, each rank's gradient covers only its own
    part of the sequence, and the gradients must be summed over the tensor-parallel ranks once per step.
    """

    dim: int | None
    shape: tuple[int, ...]
    partial: bool = False

    def local(self, full: Tensor, tp: TensorParallel) -> Tensor:
        """Return our slice of the whole parameter (a view)."""
        if self.dim is None:
            return full
        part = tp.slice(self.shape[self.dim])
        return full.narrow(self.dim, part.start, len(part))


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, tp: TensorParallel) -> Tensor:
        ctx.tp = tp
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.tp.group)
        return gradient, None


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, tp: TensorParallel) -> Tensor:
        ctx.mark_dirty(inputs)
        dist.all_reduce(inputs, group=tp.group)
        return inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Enter(nn.Module):
    """The start of a parallel region: the identity, whose backward sums the ranks' gradients."""

    def __init__(self, tp: TensorParallel) -> None:
        super().__init__()
        self.tp = tp

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `inputs`."""
        return apply(_Copy, inputs, self.tp)


class Leave(nn.Module):
    """The end of a parallel region: sums the ranks' results; the backward is the identity."""

    def __init__(self, tp: TensorParallel) -> None:
        super().__init__()
        self.tp = tp

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of all ranks' `inputs`, in their place."""
        return apply(_Reduce, inputs, self.tp)


class RowParallelLinear(Linear):
    """A linear that holds some columns of its weight: partial products, reduced, then the whole bias."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, leave: nn.Module) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.leave = leave

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the layer to our share of the inputs."""
        result: Tensor = self.leave(linear(inputs, self.weight, None, self.deferred))
        return result if self.bias is None else add_bias(result, self.bias, self.deferred)


def column_parallel(full: Linear, tp: TensorParallel) -> Linear:
    """Return `full` (on the meta device) with our share of its outputs."""
    outputs, inputs = full.weight.shape
    return Linear(inputs, len(tp.slice(outputs)), bias=full.bias is not None)


def row_parallel(full: Linear, tp: TensorParallel, leave: nn.Module) -> RowParallelLinear:
    """Return `full` (on the meta device) with our share of its inputs."""
    outputs, inputs = full.weight.shape
    return RowParallelLinear(len(tp.slice(inputs)), outputs, bias=full.bias is not None, leave=leave)
