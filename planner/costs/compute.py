"""Seconds of one block, the embedding and the head for one microbatch on one rank, collectives excluded.

Kernels are priced by `planner.costs.roofline`; what the host takes to start them is counted beside. All
functions take numbers or numpy arrays for the microbatch and the degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from planner.costs.flops import Number
from planner.costs.roofline import (
    ELEMENT_BYTES,
    KERNEL_SECONDS,
    WEIGHT_GRADIENT_FACTOR,
    bandwidth,
    matmul_seconds,
    peak_flops,
    stream_seconds,
)
from planner.costs.software import Software
from profiles.cluster import DeviceSpec, Precision
from profiles.model import ModelSpec

RANDOM_BYTES = 3.46  # drawing one random number costs as much as this traffic
HOST_JITTER = 0.047  # growth of the slowest host's time with the ranks that wait for each other
SOFTMAX_GROUP = 4
COLLECTIVE_LAUNCHES = 0.275  # what starting a collective takes the host, in kernels
CHECKPOINT_LAUNCHES = 3.38  # saving and restoring random states around a recomputed block
# Flash attention: tiles of 128 rows fill the multiprocessors only gradually (24 kernels in the same file).
FLASH_ROWS = 128
FLASH_FILL_FORWARD = 1.1
FLASH_FILL_BACKWARD = 0.6
# Rate of the backward kernel relative to the forward one: 0.86 in the same file, less in the runs of 2023.
FLASH_BACKWARD_FACTOR = 0.615


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What one rank computes of one microbatch: `microbatch` sequences split over `tp` ranks."""

    microbatch: Number
    tp: Number = 1
    sequence_parallel: Number = False
    precision: Precision = "bf16"

    @property
    def element_bytes(self) -> int:
        """Bytes of one activation."""
        return ELEMENT_BYTES[self.precision]

    @property
    def outer_tp(self) -> Number:
        """Ranks over which norms and dropouts are split: tp with sequence parallelism, else one."""
        return np.where(self.sequence_parallel, self.tp, 1)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Device seconds of one operation forward and backward; `core` marks what selective recompute repeats."""

    name: str
    forward: Number
    backward: Number
    core: bool = False
    weight_gradient: Number = 0.0  # the part of `backward` that no earlier layer waits for
    launches: Number = 1


@dataclass(frozen=True, kw_only=True)
class ComponentTimes:
    """Seconds of a component (block, embedding or head) by phase.

    `weight_gradient` is the part of `backward` that can be deferred. `recompute_selective` and
    `recompute_full` are added to the backward phase when the layout asks for them. The `host_*` are what the
    host takes to start the same work: a phase cannot be shorter.
    """

    forward: Number
    backward: Number
    weight_gradient: Number
    recompute_selective: Number = 0.0
    recompute_full: Number = 0.0
    host_forward: Number = 0.0
    host_backward: Number = 0.0
    host_recompute_selective: Number = 0.0
    host_recompute_full: Number = 0.0
    kernels: tuple[Kernel, ...] = field(default=(), repr=False)

    def recompute(self, mode: Number) -> Number:
        """Seconds recomputed under `mode` ("none", "selective" or "full", or an array of these)."""
        return _by_mode(mode, self.recompute_selective, self.recompute_full)

    def host_recompute(self, mode: Number) -> Number:
        """Seconds the host takes to start what is recomputed under `mode`."""
        return _by_mode(mode, self.host_recompute_selective, self.host_recompute_full)


def _by_mode(mode: Number, selective: Number, full: Number) -> Number:
    mode = np.asarray(mode)
    return np.where(mode == "full", full, np.where(mode == "selective", selective, 0.0))


def _linear(
    name: str, model: ModelSpec, device: DeviceSpec, part: Slice, *, k: Number, n: Number, accumulate: float
) -> Kernel:
    """One linear layer; adding its weight gradient to the microbatches' sum moves `accumulate` bytes each."""
    t, k, n = np.broadcast_arrays(part.microbatch * model.seq_len, k, n)
    # All three products at once: most of what one takes is numpy's, not the numbers'.
    m, inner, width = np.array([t, t, k]), np.array([k, n, t]), np.array([n, k, n])
    forward, gradient, weight = matmul_seconds(device, part.precision, m=m, k=inner, n=width)
    weight = WEIGHT_GRADIENT_FACTOR * weight + accumulate * k * n / bandwidth(device)
    return Kernel(name=name, forward=forward, backward=gradient + weight, weight_gradient=weight, launches=2)


def _stream(
    name: str,
    device: DeviceSpec,
    forward_bytes: Number,
    backward_bytes: Number,
    *,
    launches: Number = 1,
    core: bool = False,
) -> Kernel:
    return Kernel(
        name=name,
        forward=stream_seconds(device, forward_bytes, launches),
        backward=stream_seconds(device, backward_bytes, launches),
        core=core,
        launches=launches,
    )


def _attention(model: ModelSpec, device: DeviceSpec, software: Software, part: Slice) -> tuple[Kernel, ...]:
    """Scores, softmax, dropout and values; with flash kernels one fused, causal operation."""
    heads = part.microbatch * model.heads / part.tp
    seq, width = model.seq_len, model.head_dim
    if software.flash_attention:
        flops = 4.0 * heads * seq * seq * width / 2  # a causal kernel skips the upper half
        rate = peak_flops(device, part.precision) * device.attention_efficiency
        idle = (device.multiprocessors or 0) * FLASH_ROWS / (heads * seq)
        return (
            Kernel(
                name="attention",
                forward=flops / rate * (1 + FLASH_FILL_FORWARD * idle) + KERNEL_SECONDS,
                backward=2.5 * flops / (rate * FLASH_BACKWARD_FACTOR) * (1 + FLASH_FILL_BACKWARD * idle)
                + KERNEL_SECONDS,
                core=True,
                launches=2,
            ),
        )
    e = part.element_bytes
    scores, extra = heads * seq * seq, software.score_traffic
    product = matmul_seconds(device, part.precision, m=seq, k=width, n=seq, batch=heads)
    values = matmul_seconds(device, part.precision, m=seq, k=seq, n=width, batch=heads)
    mask = (2 * e + 1) * extra * scores if software.dropout else 0.0
    random = RANDOM_BYTES * scores if software.dropout else 0.0
    # Megatron-LM's fused softmax needs whole groups of matrices; else it runs as separate fp32 kernels.
    unfused = np.where(np.mod(heads, SOFTMAX_GROUP) == 0, 0.0, 1.0)
    return (
        Kernel(
            name="attention products",
            forward=product + values,
            backward=2 * (product + values),
            core=True,
            launches=2,
        ),
        _stream(
            "softmax",
            device,
            (2 * e * extra + unfused * 28) * scores,
            (3 * e * extra + unfused * 24) * scores,
            launches=1 + 4 * unfused,
            core=True,
        ),
        _stream("attention dropout", device, mask + random, mask, core=True),
    )


def _rotary(model: ModelSpec, device: DeviceSpec, software: Software, part: Slice) -> tuple[Kernel, ...]:
    """Rotate queries and keys."""
    rotated = part.microbatch * model.seq_len * (model.query_width + model.kv_width) / part.tp
    traffic = software.elementwise_traffic * 2 * part.element_bytes * rotated
    return (_stream("rotary", device, traffic, traffic),)


def block_kernels(
    model: ModelSpec, device: DeviceSpec, software: Software, part: Slice
) -> tuple[Kernel, ...]:
    """Every operation of one block in forward order."""
    e, tp = part.element_bytes, part.tp
    tokens = part.microbatch * model.seq_len
    outer = tokens * model.hidden / part.outer_tp  # elements of the residual stream on this rank
    qkv = (model.query_width + 2 * model.kv_width) / tp
    inner = model.ffn_hidden / tp
    gates = 2 if model.gated_mlp else 1
    mask = 1 if software.dropout else 0
    extra = software.elementwise_traffic
    return (
        _stream("norm 1", device, extra * 2 * e * outer, extra * 3 * e * outer),
        _linear(
            "query, key, value",
            model,
            device,
            part,
            k=model.hidden,
            n=qkv,
            accumulate=software.accumulate_bytes,
        ),
        *(_rotary(model, device, software, part) if model.position == "rope" else ()),
        *_attention(model, device, software, part),
        _linear(
            "attention output",
            model,
            device,
            part,
            k=model.query_width / tp,
            n=model.hidden,
            accumulate=software.accumulate_bytes,
        ),
        _stream("residual 1", device, (extra * 3 * e + mask) * outer, (extra * e + e * mask + mask) * outer),
        _stream("norm 2", device, extra * 2 * e * outer, extra * 3 * e * outer),
        _linear(
            "mlp up",
            model,
            device,
            part,
            k=model.hidden,
            n=gates * inner,
            accumulate=software.accumulate_bytes,
        ),
        _stream(
            "activation",
            device,
            extra * (gates + 1) * e * tokens * inner,
            extra * (2 * gates + 1) * e * tokens * inner,
        ),
        _linear(
            "mlp down", model, device, part, k=inner, n=model.hidden, accumulate=software.accumulate_bytes
        ),
        _stream("residual 2", device, (extra * 3 * e + mask) * outer, (extra * e + e * mask + mask) * outer),
    )


def block_times(model: ModelSpec, device: DeviceSpec, software: Software, part: Slice) -> ComponentTimes:
    """Seconds of one transformer block."""
    return _times(device, software, part, block_kernels(model, device, software, part), collectives=2)


def embedding_times(model: ModelSpec, device: DeviceSpec, software: Software, part: Slice) -> ComponentTimes:
    """Seconds of the embedding: a gather forward, backward a scatter into a dense gradient that is summed."""
    elements = part.microbatch * model.seq_len * model.hidden
    e = part.element_bytes
    mask = 1 if software.dropout else 0
    dense = (e + software.accumulate_bytes) * model.vocab / part.tp * model.hidden
    gather = _stream(
        "embedding", device, (2 * e + (2 * e + 1) * mask) * elements, (e + 8) * elements + dense, launches=2
    )
    return _times(device, software, part, (gather,))


def head_times(model: ModelSpec, device: DeviceSpec, software: Software, part: Slice) -> ComponentTimes:
    """Seconds of the final norm, the output projection and the cross-entropy over the split vocabulary."""
    e = part.element_bytes
    outer = part.microbatch * model.seq_len * model.hidden / part.outer_tp
    vocabulary = np.ceil(model.vocab / part.tp)
    logits = part.microbatch * model.seq_len * vocabulary
    return _times(
        device,
        software,
        part,
        (
            _stream("final norm", device, 2 * e * outer, 3 * e * outer),
            _linear(
                "output projection",
                model,
                device,
                part,
                k=model.hidden,
                n=vocabulary,
                accumulate=software.accumulate_bytes,
            ),
            # cast to fp32, maximum, exponential with sum, and the gradient in place
            _stream(
                "cross-entropy",
                device,
                (e + software.loss_bytes * 2 / 3) * logits,
                (e + software.loss_bytes / 3) * logits,
                launches=4,
            ),
        ),
        wait=software.loss_seconds,
    )


def _times(
    device: DeviceSpec,
    software: Software,
    part: Slice,
    kernels: tuple[Kernel, ...],
    *,
    collectives: int = 0,
    wait: float = 0.0,
) -> ComponentTimes:
    """Sum the kernels, and what the host takes to start them.

    The host issues a forward from Python, a backward from the framework's own loop over twice the operations
    at half the time each. Ranks of a tensor-parallel group wait for the slowest host of the group.
    `collectives` are those in each direction; `wait` is spent per microbatch with nothing queued.
    """
    host = device.launch_seconds * software.host_factor * (1 + HOST_JITTER * (np.sqrt(part.tp) - 1))
    count = sum(kernel.launches for kernel in kernels)
    again = _selective(software, kernels)
    gap = software.gap_seconds
    calls = collectives * COLLECTIVE_LAUNCHES * np.where(np.asarray(part.tp) > 1, 1.0, 0.0)
    forward = wait + sum(kernel.forward for kernel in kernels) + gap * count
    return ComponentTimes(
        forward=forward,
        backward=sum(kernel.backward for kernel in kernels) + gap * count,
        weight_gradient=sum(kernel.weight_gradient for kernel in kernels),
        recompute_selective=sum(share * (k.forward + gap * k.launches) for k, share in again),
        recompute_full=forward,
        host_forward=(count + calls) * host,
        host_backward=(count + calls) * host,
        host_recompute_selective=sum(share * k.launches for k, share in again) * host,
        host_recompute_full=(count + calls + CHECKPOINT_LAUNCHES) * host,
        kernels=kernels,
    )


def _selective(software: Software, kernels: tuple[Kernel, ...]) -> list[tuple[Kernel, float]]:
    """Return what selective recompute repeats, with the share of it."""
    kept = software.selective_keeps_matmuls
    if kept is None:
        return [(kernel, 1.0) for kernel in kernels if kernel.core]
    repeated = []
    for kernel in kernels:
        if not kernel.core:
            product = bool(np.any(np.asarray(kernel.weight_gradient) > 0))
            repeated.append((kernel, 1.0 - kept if product else 1.0))
    return repeated


def optimizer_seconds(
    device: DeviceSpec, parameters: Number, gradient_bytes: int, element_bytes: int
) -> Number:
    """One AdamW step with clipping over `parameters` parameters of this rank.

    Traffic of one parameter: read the gradient for the norm and again for the update, read and write the fp32
    master weight and both moments, write the weight.
    """
    traffic = 2 * gradient_bytes + 3 * 8 + element_bytes
    return stream_seconds(device, traffic * parameters, 4)
