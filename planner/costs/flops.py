"""Floating-point operations of a decoder-only transformer, counted from its matrix products.

A product of (m × k) by (k × n) is 2·m·k·n operations; the backward pass does two such products. Attention is
counted over the full (not causal) score matrix, as in Narayanan et al. 2021 (arXiv 2104.04473, §5.1) and
Korthikanti et al. 2022 (arXiv 2205.05198, eq. 8), so that a utilisation compares with theirs. All functions
take numbers or numpy arrays.
"""

from __future__ import annotations

from typing import Any

from profiles.model import ModelSpec

Number = Any  # a float, or a numpy array of floats


def block_matmul_flops(model: ModelSpec, sequences: Number = 1) -> Number:
    """Forward FLOPs of the weight products of one block for `sequences` sequences."""
    inner = model.ffn_hidden * (3 if model.gated_mlp else 2)
    width = 2 * model.query_width + 2 * model.kv_width + inner
    return 2 * sequences * model.seq_len * model.hidden * width


def block_attention_flops(model: ModelSpec, sequences: Number = 1) -> Number:
    """Forward FLOPs of the scores and of their product with the values, full matrix."""
    return 4 * sequences * model.seq_len**2 * model.query_width


def block_flops(model: ModelSpec, sequences: Number = 1) -> Number:
    """Forward FLOPs of one block for `sequences` sequences."""
    return block_matmul_flops(model, sequences) + block_attention_flops(model, sequences)


def head_flops(model: ModelSpec, sequences: Number = 1) -> Number:
    """Forward FLOPs of the output projection for `sequences` sequences."""
    return 2 * sequences * model.seq_len * model.hidden * model.vocab


def model_flops(model: ModelSpec, sequences: Number = 1) -> Number:
    """FLOPs of forward and backward of the whole model, nothing recomputed.

    For a GPT this is 72·B·s·L·h²·(1 + s/6h + V/12Lh) (Korthikanti et al. 2022, eq. 8).
    """
    return 3 * (model.layers * block_flops(model, sequences) + head_flops(model, sequences))
