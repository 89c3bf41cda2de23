"""One pre-norm transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from profiles.model import ModelSpec
from runtime.models.attention import Attention
from runtime.models.mlp import MLP
from runtime.models.norms import build_norm
from runtime.models.rotary import Rotary


class Block(nn.Module):
    """hidden + attention(norm(hidden)), then hidden + mlp(norm(hidden))."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention_norm = build_norm(spec)
        self.attention = Attention(spec)
        self.mlp_norm = build_norm(spec)
        self.mlp = MLP(spec)

    def forward(self, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        """Transform [microbatch, seq, hidden]."""
        hidden = hidden + self.attention(self.attention_norm(hidden), rotary)
        result: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return result
