"""Tensor parallelism: layers split over ranks that together hold one copy of the model.

Each half of a block (attention, MLP) is one parallel region (Shoeybi et al. 2019, arXiv:1909.08053):

    hidden ──► enter ──► column-parallel ──► local work ──► row-parallel ──► leave ──► hidden
               forward: nothing                                        forward: all-reduce
               backward: all-reduce                                    backward: nothing

so a region costs one all-reduce in each direction. With sequence parallelism (Korthikanti et al. 2022,
arXiv:2205.05198) the ranks also share out the positions of what lies between the regions: entering gathers
them, leaving reduces and scatters, which moves the same bytes and keeps 1/tp of the activations.

A column-parallel linear is a plain `Linear` with fewer outputs; a row-parallel one has fewer inputs, and adds
its bias after the reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, tp: TensorParallel) -> Tensor:
        ctx.mark_dirty(inputs)
        dist.all_reduce(inputs, group=tp.group)
        return inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, tp: TensorParallel) -> Tensor:
        ctx.tp = tp
        return _reduce_scatter(inputs, tp)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _gather(gradient, ctx.tp), None


def _gather(part: Tensor, tp: TensorParallel) -> Tensor:
    """Join the ranks' positions: [microbatch, seq / tp, width] → [microbatch, seq, width]."""
    return _start_gather(part, tp)()


def _start_gather(part: Tensor, tp: TensorParallel) -> Callable[[], Tensor]:
    parts = part.new_empty((tp.size, *part.shape))
    work = _all_gather(parts.view(-1), part.contiguous().view(-1), group=tp.group, async_op=True)

    def finish() -> Tensor:
        work.wait()
        return parts.movedim(0, 1).flatten(1, 2)

    return finish


def _reduce_scatter(whole: Tensor, tp: TensorParallel) -> Tensor:
    """Sum over the ranks, each keeping its positions: [microbatch, seq, width] → [.., seq / tp, ..]."""
    return _start_reduce_scatter(whole, tp)()


def _start_reduce_scatter(whole: Tensor, tp: TensorParallel) -> Callable[[], Tensor]:
    rows, length, width = whole.shape
    parts = whole.reshape(rows, tp.size, length // tp.size, width).movedim(1, 0).contiguous()
    result = torch.empty_like(parts[0])
    work = _reduce_scatter_single(result.view(-1), parts.view(-1), group=tp.group, async_op=True)

    def finish() -> Tensor:
        work.wait()
        return result

    return finish


# Renamed in torch 2.13, where the old names warn.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, kw_only=True)
class Enter:
    """The start of a parallel region whose ranks all hold its input; gradients are summed over them."""

    tp: TensorParallel

    def whole(self, kept: Tensor) -> Tensor:
        """Return `kept`."""
        return kept

    def start_whole(self, kept: Tensor) -> Callable[[], Tensor]:
        """Return a function that returns `kept`."""
        return lambda: kept

    def start_reduce(self, gradient: Tensor) -> Callable[[], Tensor]:
        """Start summing `gradient` over the ranks, in its place."""
        work = dist.all_reduce(gradient, group=self.tp.group, async_op=True)
        assert work is not None

        def finish() -> Tensor:
            work.wait()
            return gradient

        return finish


@dataclass(frozen=True, kw_only=True)
class EnterGathering:
    """The start of a parallel region with sequence parallelism: each rank keeps its positions of the input.

    The backward gathers the input again rather than keeping it (Korthikanti et al. 2022, §4.2.2).
    """

    tp: TensorParallel

    def whole(self, kept: Tensor) -> Tensor:
        """Return all ranks' positions."""
        return _gather(kept, self.tp)

    def start_whole(self, kept: Tensor) -> Callable[[], Tensor]:
        """Start gathering all ranks' positions."""
        return _start_gather(kept, self.tp)

    def start_reduce(self, gradient: Tensor) -> Callable[[], Tensor]:
        """Start summing `gradient` over the ranks, each of which gets its positions."""
        return _start_reduce_scatter(gradient, self.tp)


class Leave(nn.Module):
    """The end of a parallel region: sums the ranks' results."""

    def __init__(self, tp: TensorParallel, *, sequence_parallel: bool = False) -> None:
        super().__init__()
        self.tp = tp
        self.sequence_parallel = sequence_parallel

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of all ranks' `inputs` (in their place), or our positions of it."""
        return apply(_ReduceScatter if self.sequence_parallel else _Reduce, inputs, self.tp)


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


@torch.no_grad()
def sum_partial_gradients(
    parameters: Mapping[str, nn.Parameter], shards: Mapping[str, ShardSpec], tp: TensorParallel
) -> None:
    """Sum in one message the gradients of which each tensor-parallel rank has only its positions' part.

    Called once per step, after the last backward; does nothing without sequence parallelism.
    """
    gradients = [
        parameter.grad
        for name, parameter in parameters.items()
        if shards[name].partial and parameter.grad is not None
    ]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=tp.group)
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view(gradient.shape))
        offset += gradient.numel()
