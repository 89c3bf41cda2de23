"""Token and position embeddings whose weight gradients can wait for the W action."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from runtime.linear import DeferredGradients, DeferringModule, apply, zero_gradient


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layer: TokenEmbedding, weight: Tensor) -> Tensor:
        ctx.weight, ctx.deferred = weight, layer.deferred
        if layer.whole:
            ctx.save_for_backward(tokens)
            return functional.embedding(tokens, weight)
        rows = tokens - layer.first_row
        ours = (rows >= 0) & (rows < weight.shape[0])
        rows = rows.clamp(0, max(0, weight.shape[0] - 1))
        ctx.save_for_backward(rows, ours)
        if not weight.shape[0]:
            return weight.new_zeros((*tokens.shape, weight.shape[1]))
        return functional.embedding(rows, weight) * ours.unsqueeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        rows, *ours = ctx.saved_tensors
        weight, deferred = ctx.weight, ctx.deferred

        def work() -> None:
            total = zero_gradient(weight)
            flat = (gradient * ours[0].unsqueeze(-1) if ours else gradient).flatten(0, 1)
            if total.shape[0]:
                total.index_add_(0, rows.flatten(), flat.to(total.dtype))
            deferred.added(weight)

        if ctx.needs_input_grad[2]:
            deferred.add(work)
        return None, None, None


class TokenEmbedding(DeferringModule):
    """The token embedding, or when not `whole` its rows from `first_row` on; tokens outside give zeros."""

    def __init__(self, rows: int, width: int, *, whole: bool = True, first_row: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.whole, self.first_row = whole, first_row

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up int64 tokens [microbatch, seq]."""
        return apply(_Lookup, tokens, self, self.weight)


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
        weight, start, deferred = ctx.weight, ctx.start, ctx.deferred

        def work() -> None:
            zero_gradient(weight)[start : start + gradient.shape[1]] += gradient.sum(0)
            deferred.added(weight)

        if ctx.needs_input_grad[1]:
            deferred.add(work)
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
