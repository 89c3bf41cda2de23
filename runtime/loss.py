"""Cross-entropy over a vocabulary that may be split over tensor-parallel ranks.

With rank t holding logits z over its own rows of the vocabulary, each token needs three numbers from each
rank: the largest logit, Σ exp(z − largest) and the target's logit. They travel in one message.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from runtime.linear import apply
from runtime.tensor_parallel import TensorParallel

IGNORED = -100


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, tp: TensorParallel, first_row: int) -> Tensor:
        scores = logits.float() if logits.dtype.itemsize < 4 else logits
        valid = targets != IGNORED
        rows = scores.shape[1]
        local = targets - first_row
        ours = valid & (local >= 0) & (local < rows)
        columns = local.clamp(0, max(0, rows - 1)).unsqueeze(1)

        # A rank at the end of a small vocabulary may hold no row at all.
        largest = scores.amax(1) if rows else scores.new_full(targets.shape, float("-inf"))
        picked = scores.gather(1, columns).squeeze(1) * ours if rows else scores.new_zeros(targets.shape)
        scores.sub_(largest.unsqueeze(1)).exp_()
        total = scores.sum(1)
        if tp.size > 1:
            parts = _gather(torch.stack((largest, total, picked)), tp)
            own, largest = largest, parts[:, 0].amax(0)
            total = (parts[:, 1] * (parts[:, 0] - largest).exp()).sum(0)
            picked = parts[:, 2].sum(0)
            scores.mul_((own - largest).exp().unsqueeze(1))
        scores.div_(total.unsqueeze(1))  # now the probabilities

        ctx.save_for_backward(scores, valid, ours, columns)
        ctx.dtype, ctx.spent = logits.dtype, False
        losses = torch.where(valid, total.log() + largest - picked, 0.0)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.spent:
            raise RuntimeError("the loss reuses its memory and can be differentiated only once")
        ctx.spent = True
        scores, valid, ours, columns = ctx.saved_tensors
        if scores.shape[1]:
            scores.scatter_add_(1, columns, -ours.to(scores.dtype).unsqueeze(1))
        scores.mul_((gradient * valid).unsqueeze(1))
        return scores.to(ctx.dtype), None, None, None


def _gather(part: Tensor, tp: TensorParallel) -> Tensor:
    parts = part.new_zeros((tp.size, *part.shape))
    parts[tp.rank] = part
    dist.all_reduce(parts, group=tp.group)
    return parts


def cross_entropy_sum(logits: Tensor, targets: Tensor, tp: TensorParallel, first_row: int = 0) -> Tensor:
    """Return the sum of the token losses, the same scalar on every tensor-parallel rank.

    `logits` [..., rows] are our rows of the vocabulary, starting at `first_row`; they are overwritten.
    `targets` [...] are token numbers of the whole vocabulary; −100 is ignored. Low-precision logits are
    summed in fp32. Can be differentiated once.
    """
    flat = logits.flatten(0, -2)
    return apply(_CrossEntropy, flat, targets.reshape(-1), tp, first_row)
