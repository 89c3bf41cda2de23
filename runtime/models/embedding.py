"""Token and position embeddings whose weight gradients can wait for the W action."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from runtime.linear import DeferredGradients, DeferringModule, apply


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, first_row: int, deferred: DeferredGradients
    ) -> Tensor:
        rows = tokens - first_row
        ours = (rows >= 0) & (rows < weight.shape[0])
        result = weight.new_zeros((*tokens.shape, weight.shape[1]))
        result[ours] = weight[rows[ours]]
        ctx.save_for_backward(rows, ours)
        ctx.weight, ctx.deferred = weight, deferred
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, None]:
        rows, ours = ctx.saved_tensors
        weight = ctx.weight

        def work() -> None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.index_add_(0, rows[ours], gradient[ours])

        if ctx.needs_input_grad[1]:
            ctx.deferred.add(work)
        return None, None, None, None


class TokenEmbedding(DeferringModule):
    """Rows `first_row` … of the token embedding; tokens outside them give zeros."""

    def __init__(self, rows: int, width: int, *, first_row: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.first_row = first_row

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up int64 tokens [microbatch, seq]."""
        return apply(_Lookup, tokens, self.weight, self.first_row, self.deferred)


class PositionEmbedding(DeferringModule):
    """Learned positions, added to the hidden states. `shard` counts the sequence shards before ours."""

    def __init__(self, positions: int, width: int, *, shard: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(positions, width))
        self.shard = shard

    def forward(self, hidden: Tensor) -> Tensor:
        """Add the positions to [microbatch, seq, hidden]."""
        length = hidden.shape[1]
        return apply(_AddPositions, hidden, self.weight, self.shard * length, self.deferred)


class _AddPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, start: int, deferred: DeferredGradients) -> Tensor:
        ctx.weight, ctx.start, ctx.deferred = weight, start, deferred
        return hidden + weight[start : start + hidden.shape[1]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, start = ctx.weight, ctx.start

        def work() -> None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad[start : start + gradient.shape[1]] += gradient.sum(0)

        if ctx.needs_input_grad[1]:
            ctx.deferred.add(work)
        return gradient, None, None, None


class Embedding(nn.Module):
    """Tokens → hidden states: the token embedding and, if learned, the position embedding.

    `leave` is where the tensor-parallel region of the vocabulary ends.
    """

    def __init__(self, *, vocab: int, width: int, positions: int | None) -> None:
        super().__init__()
        self.token = TokenEmbedding(vocab, width)
        self.leave: nn.Module = nn.Identity()
        self.position = PositionEmbedding(positions, width) if positions is not None else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [microbatch, seq, hidden] for int64 tokens [microbatch, seq]."""
        hidden: Tensor = self.leave(self.token(tokens))
        return hidden if self.position is None else self.position(hidden)
