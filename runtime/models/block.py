"""One pre-norm transformer block."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from planner.layout import Recompute
from profiles.model import ModelSpec
from runtime.models.attention import Attention
from runtime.models.mlp import MLP
from runtime.models.norms import build_norm
from runtime.models.rotary import Rotary
from runtime.recompute import recomputed


class Block(nn.Module):
    """hidden + attention(norm(hidden)), then hidden + mlp(norm(hidden)).

    `recompute` says what is run again for the backward: `selective` the attention core, whose inputs are
    kept (Korthikanti et al. 2022, arXiv:2205.05198); `full` all of the block, whose input is kept.
    """

    def __init__(self, spec: ModelSpec, recompute: Recompute) -> None:
        super().__init__()
        self.attention_norm = build_norm(spec)
        self.attention = Attention(spec)
        self.mlp_norm = build_norm(spec)
        self.mlp = MLP(spec)
        self.recompute = recompute

    def forward(self, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        """Transform [microbatch, seq, hidden]."""
        if self.recompute == "full":
            return recomputed(partial(self._forward, rotary=rotary), hidden)
        return self._forward(hidden, rotary)

    def _forward(self, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        again = self.recompute == "selective"
        hidden = hidden + self.attention(self.attention_norm(hidden), rotary, recompute=again)
        result: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return result
