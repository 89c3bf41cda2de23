"""The MLP of a block: plain (two matrices) or gated (three)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from profiles.model import ModelSpec
from runtime.linear import Entrance, Linear, apply, linears

Activation = Callable[[Tensor], Tensor]


def _gelu_tanh(values: Tensor) -> Tensor:
    return functional.gelu(values, approximate="tanh")


ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": functional.silu,
    "relu": functional.relu,
}


class MLP(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) · up(x)) when gated.

    `enter` is where a tensor-parallel region starts.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        assert spec.activation is not None
        bias = bool(spec.linear_bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.enter: Entrance | None = None
        self.gate = Linear(spec.hidden, spec.ffn_hidden, bias=bias) if spec.gated_mlp else None
        self.up = Linear(spec.hidden, spec.ffn_hidden, bias=bias)
        self.down = Linear(spec.ffn_hidden, spec.hidden, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each position of [microbatch, seq, hidden]."""
        if self.gate is None:
            (inner,) = linears(hidden, self.up, enter=self.enter)
            inner = self.activation(inner)
        else:
            gate, up = linears(hidden, self.gate, self.up, enter=self.enter)
            inner = apply(_Gated, gate, up, self.activation)
        result: Tensor = self.down(inner)
        return result


class _Gated(torch.autograd.Function):
    """act(gate) · up, keeping only gate and up: the activation is recomputed in the backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activation(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            leaf = gate.detach().requires_grad_()
            active = ctx.activation(leaf)
        (gate_gradient,) = torch.autograd.grad(active, leaf, gradient * up)
        return gate_gradient, gradient * active.detach(), None
