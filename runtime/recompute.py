"""Activation recomputation: keep the inputs of a piece of the model, run it again for its backward.

The models have no dropout, so the second run needs no random state. Tensor-parallel collectives inside the
piece run a second time too, on every rank in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runtime.linear import apply


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        return run(*inputs)  # autograd is off inside a forward: nothing else is kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            tensor.detach().requires_grad_(wanted)
            for tensor, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        with torch.enable_grad():
            result = ctx.run(*inputs)
        torch.autograd.backward(result, gradient)
        return None, *(tensor.grad for tensor in inputs)


def recomputed(run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return `run(*inputs)`, of which only `inputs` are kept until the backward.

    `run` may use parameters, whose gradients it adds as it would otherwise. The first input must be
    differentiable.
    """
    if not torch.is_grad_enabled():
        return run(*inputs)
    if not inputs[0].requires_grad:  # else autograd would pass over the piece and its parameters
        inputs = (inputs[0].detach().requires_grad_(), *inputs[1:])
    return apply(_Recompute, run, *inputs)
