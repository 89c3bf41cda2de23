"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves rotated as in Hugging Face's Llama."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runtime.linear import apply


class _Rotate(torch.autograd.Function):
    """Rotates each pair (x[i], x[i + width/2]) by its angle; the backward rotates back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.cosine, ctx.sine = cosine, sine
        return _rotate(inputs, cosine, sine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _rotate(gradient, ctx.cosine, -ctx.sine), None, None


def _rotate(inputs: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = inputs.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(
        inputs.dtype
    )


class Rotary:
    """The table of cosines and sines of one model: fp32 at least, angles computed in fp64."""

    def __init__(
        self, *, seq_len: int, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        angles = torch.outer(torch.arange(seq_len, dtype=torch.float64), theta**-exponents)
        table = torch.promote_types(dtype, torch.float32)
        self.cosine = angles.cos().to(device, table)
        self.sine = angles.sin().to(device, table)

    def __call__(self, heads: Tensor) -> Tensor:
        """Rotate [microbatch, seq, heads, head_dim] by the position along seq."""
        length = heads.shape[1]
        cosine, sine = self.cosine[:length, None], self.sine[:length, None]
        return apply(_Rotate, heads, cosine, sine)
