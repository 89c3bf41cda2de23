"""LayerNorm and RMSNorm whose weight gradients can wait for the W action.

Only adding them waits. One pass over the activations gives all gradients of a norm, and those of its weights
are no larger than the weights; to come back for them would keep the activations and read them twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from profiles.model import ModelSpec
from runtime.linear import DeferredGradients, DeferringModule, apply


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: LayerNorm, weight: Tensor, bias: Tensor) -> Tensor:
        result, mean, inverse = torch.native_layer_norm(inputs, weight.shape, weight, bias, layer.epsilon)
        ctx.save_for_backward(inputs, mean, inverse, weight)
        ctx.weight, ctx.bias, ctx.deferred = weight, bias, layer.deferred
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        inputs, mean, inverse, _ = ctx.saved_tensors
        parameters = ctx.weight, ctx.bias
        wanted = [ctx.needs_input_grad[i] for i in (0, 2, 3)]
        result, *gradients = torch.ops.aten.native_layer_norm_backward(
            gradient, inputs, ctx.weight.shape, mean, inverse, *parameters, wanted
        )
        for parameter, own, needed in zip(parameters, gradients, wanted[1:], strict=True):
            if needed:
                ctx.deferred.add(partial(ctx.deferred.accumulate, parameter, own))
        return result, None, None, None


class LayerNorm(DeferringModule):
    """LayerNorm over the last dimension, with weight and bias."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return apply(_LayerNorm, inputs, self, self.weight, self.bias)


class _RMSNorm(torch.autograd.Function):
    """y = w · x̂ with x̂ = x / √(mean(x²) + ε); dx = (g·w − x̂ · mean(g·w·x̂)) / √(mean(x²) + ε)."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, epsilon: float, deferred: DeferredGradients
    ) -> Tensor:
        values = _wide(inputs)
        inverse = values.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, inverse, weight)
        ctx.weight, ctx.deferred = weight, deferred
        return (values * inverse).to(inputs.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        inputs, inverse, values = ctx.saved_tensors
        normed = _wide(inputs) * inverse
        gradient = _wide(gradient)
        if ctx.needs_input_grad[1]:
            own = (gradient * normed).sum(tuple(range(gradient.dim() - 1)))
            ctx.deferred.add(partial(ctx.deferred.accumulate, ctx.weight, own))
        result = None
        if ctx.needs_input_grad[0]:
            scaled = gradient * values
            mean = (scaled * normed).mean(-1, keepdim=True)
            result = scaled.addcmul_(normed, mean, value=-1.0).mul_(inverse).to(inputs.dtype)
        return result, None, None, None


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


class RMSNorm(DeferringModule):
    """Root-mean-square norm over the last dimension (Zhang & Sennrich 2019), computed in fp32 or wider."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return apply(_RMSNorm, inputs, self.weight, self.epsilon, self.deferred)


def build_norm(spec: ModelSpec) -> LayerNorm | RMSNorm:
    """Return the norm that `spec` names, over its hidden width."""
    kind = LayerNorm if spec.norm == "layernorm" else RMSNorm
    return kind(spec.hidden, spec.norm_epsilon)
