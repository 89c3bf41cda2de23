"""Causal self-attention with grouped key/value heads."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from profiles.model import ModelSpec
from runtime.linear import Entrance, Linear, linears
from runtime.models.rotary import Rotary
from runtime.recompute import recomputed


class Attention(nn.Module):
    """Query, key, value and output projections around the attention core.

    The numbers of heads follow from the widths of the projections, so a rank that holds some of the heads
    runs the same code. `enter` is where a tensor-parallel region starts.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        inner, outer = bool(spec.attention_bias), bool(spec.linear_bias)
        self.head_dim = spec.head_dim
        self.enter: Entrance | None = None
        self.query = Linear(spec.hidden, spec.query_width, bias=inner)
        self.key = Linear(spec.hidden, spec.kv_width, bias=inner)
        self.value = Linear(spec.hidden, spec.kv_width, bias=inner)
        self.output = Linear(spec.query_width, spec.hidden, bias=outer)

    def forward(self, hidden: Tensor, rotary: Rotary | None, *, recompute: bool = False) -> Tensor:
        """Mix [microbatch, seq, hidden] over positions; `rotary` turns queries and keys first."""
        query, key, value = (
            heads.view(*heads.shape[:2], -1, self.head_dim)
            for heads in linears(hidden, self.query, self.key, self.value, enter=self.enter)
        )
        core = partial(attend, rotary=rotary)
        mixed = recomputed(core, query, key, value) if recompute else core(query, key, value)
        result: Tensor = self.output(mixed.flatten(2))
        return result


def attend(query: Tensor, key: Tensor, value: Tensor, rotary: Rotary | None) -> Tensor:
    """Causal attention on [microbatch, seq, heads, head_dim]; key and value may have fewer heads."""
    if rotary is not None:
        query, key = rotary(query), rotary(key)
    grouped = query.shape[2] != key.shape[2]
    return functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True, enable_gqa=grouped
    ).transpose(1, 2)
