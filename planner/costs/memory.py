"""Bytes one rank holds at its peak: state, activations in flight, and what lives for a moment.

    weights        parameters in the training precision (1/dp with ZeRO-3)
    gradients      in the accumulation precision (1/dp with ZeRO-2)
    optimizer      fp32 master weights and two moments (1/dp with ZeRO-1)
    activations    kept from forward to backward × microbatches in flight
    workspace      logits and their gradient, one block's recomputed activations, buffers, device context

Activations follow Korthikanti et al. 2022 (arXiv 2205.05198, §4), counted tensor by tensor so that gated
MLPs, grouped-query attention and flash kernels have their own sums. All functions take numbers or arrays.
"""

from __future__ import annotations

import numpy as np

from planner.costs.compute import Slice
from planner.costs.flops import Number
from planner.costs.roofline import ELEMENT_BYTES
from planner.costs.software import Software
from profiles.cluster import DeviceSpec, Precision
from profiles.model import ModelSpec

BUCKET_BYTES = 40e6  # one bucket of gradients in flight
FRAGMENTATION = 0.04  # of the tensors: what the caching allocator cannot reuse


def block_activation_bytes(
    model: ModelSpec, software: Software, part: Slice, recompute: Number = "none"
) -> Number:
    """Bytes one block keeps of one microbatch from forward to backward."""
    e, tp = part.element_bytes, part.tp
    tokens = part.microbatch * model.seq_len
    outer = tokens * model.hidden / part.outer_tp
    mask = 1 if software.dropout else 0
    gates = 2 if model.gated_mlp else 1
    streams = (4 * e + 2 * mask) * outer  # inputs of both norms and of both column-parallel products
    attention = e * tokens * (2 * model.query_width + 2 * model.kv_width) / tp
    kept_inner = gates + (2 if model.gated_mlp and not software.fused_mlp else 1)
    inner = e * kept_inner * tokens * model.ffn_hidden / tp
    heads = part.microbatch * model.heads / tp
    if software.flash_attention:
        core = 4 * heads * model.seq_len
    else:
        core = (e + mask * (e + 1)) * heads * model.seq_len**2
    kept = streams + attention + inner
    mode = np.asarray(recompute)
    if software.selective_keeps_matmuls is not None:
        products = model.query_width + 2 * model.kv_width + gates * model.ffn_hidden
        share = software.selective_keeps_matmuls * e * tokens
        selective = e * outer + e * tokens * model.query_width / tp
        selective = selective + share * (products / tp + 2 * model.hidden / part.outer_tp)
    else:
        selective = kept + (core if software.flash_attention else 0.0)
    return np.where(mode == "full", e * outer, np.where(mode == "selective", selective, kept + core))


def embedding_activation_bytes(model: ModelSpec, software: Software, part: Slice) -> Number:
    """Bytes the embedding keeps of one microbatch: token numbers, and a dropout mask."""
    tokens = part.microbatch * model.seq_len
    return 8 * tokens + (tokens * model.hidden / part.outer_tp if software.dropout else 0.0)


def head_activation_bytes(model: ModelSpec, software: Software, part: Slice) -> Number:
    """Bytes norm, output projection and cross-entropy keep: inputs, and the softmax."""
    tokens = part.microbatch * model.seq_len
    inputs = 2 * part.element_bytes * tokens * model.hidden / part.outer_tp
    return inputs + software.logit_bytes * tokens * np.ceil(model.vocab / part.tp)


def head_workspace_bytes(model: ModelSpec, software: Software, part: Slice) -> Number:
    """Bytes that live only while the loss is computed: the gradient of the logits."""
    tokens = part.microbatch * model.seq_len
    return software.logit_bytes * tokens * np.ceil(model.vocab / part.tp)


def weight_bytes(parameters: Number, precision: Precision, dp: Number, zero: Number) -> Number:
    """Weights in the training precision."""
    return ELEMENT_BYTES[precision] * parameters / np.where(np.asarray(zero) >= 3, dp, 1)


def gradient_bytes(
    parameters: Number, software: Software, precision: Precision, dp: Number, zero: Number
) -> Number:
    """Accumulated gradients, and flat copies of them."""
    sharded = np.where(np.asarray(zero) >= 2, dp, 1)
    return (gradient_element_bytes(software, precision) + software.buffer_bytes) / sharded * parameters


def gradient_element_bytes(software: Software, precision: Precision) -> int:
    """Bytes of one accumulated gradient: those of a full-precision weight, or the code's own for 16 bits."""
    size = ELEMENT_BYTES[precision]
    return size if size >= 4 else software.gradient_bytes


def reduced_element_bytes(software: Software, precision: Precision) -> int:
    """Bytes of one gradient on its way over dp."""
    size = ELEMENT_BYTES[precision]
    return size if size >= 4 else software.reduce_bytes


def optimizer_bytes(parameters: Number, precision: Precision, dp: Number, zero: Number) -> Number:
    """AdamW's two moments, and fp32 master weights where the weights are shorter than that."""
    size = ELEMENT_BYTES[precision]
    each = 3 * 4 if size < 4 else 2 * size
    return each * parameters / np.where(np.asarray(zero) >= 1, dp, 1)


def fits(device: DeviceSpec, total_bytes: Number) -> Number:
    """Whether a rank with `total_bytes` runs; an allocator frees what it cannot reuse before it fails."""
    return total_bytes <= device.memory_bytes


def tight(device: DeviceSpec, total_bytes: Number) -> Number:
    """Whether a rank runs, but with less room than fragmentation usually takes."""
    reserved = total_bytes + FRAGMENTATION * (total_bytes - device.context_bytes)
    return fits(device, total_bytes) & (reserved > device.memory_bytes)


def gathered_bytes(
    model: ModelSpec, software: Software, precision: Precision, tp: Number, zero: Number
) -> Number:
    """Bytes of whole blocks under ZeRO-3: the weights in use, the next ones, and one block's gradients.

    Code that gathers parameter by parameter holds about one block's worth.
    """
    block = ELEMENT_BYTES[precision] * model.block_parameters / tp
    return np.where(np.asarray(zero) >= 3, (1 if software.single_rail else 3) * block, 0.0)
