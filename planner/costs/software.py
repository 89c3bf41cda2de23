"""Software: what the training code does with a layer, apart from the layout.

Published runs differ in the year of their code: whether attention scores are materialised, how many kernels
one layer is made of, what is kept from forward to backward. These are the only properties in which a
prediction may differ between two runs of the same layout on the same devices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Software:
    """Properties of the training code that change time and memory.

    Attributes:
        flash_attention: attention scores are never stored.
        gradient_bytes: size of one accumulated gradient element.
        reduce_bytes: size of one gradient element in its reduction over dp.
        dropout: masks are drawn and kept.
        elementwise_traffic: memory traffic of norms, activations and residuals relative to fused kernels.
        selective_keeps_matmuls: share of matrix products that selective recompute keeps beside the
            attention's output; null: it repeats the attention core and nothing else.
        host_factor: host time per kernel relative to `DeviceSpec.launch_seconds` (Python, autograd).
        gap_seconds: how long the device idles between two kernels of a layer.
        loss_seconds: how long it idles per microbatch while the host fetches a batch and reads the loss.
        hop_seconds: how long it idles to start sending to, or receiving from, another stage.
        synchronous: the host starts a kernel only once the one before has ended.
        score_traffic: memory traffic of softmax and dropout on stored scores relative to fused kernels.
        scatter_bytes: size of one gradient element in the per-microbatch scatter of ZeRO-2 and 3.
        zero_group: over how many ranks ZeRO-1 shards; null: all of dp.
        broadcasts: ZeRO-1 sums gradients on all ranks, and each rank broadcasts the weights it has updated.
        single_rail: gathers parameter by parameter and so reaches one port's bandwidth.
        loss_bytes: memory traffic of the cross-entropy per logit, beside reading it once in each direction.
        logit_bytes: size of one element of the softmax that the loss keeps, and of its gradient.
        accumulate_bytes: memory traffic of adding one weight's gradient to the sum over microbatches.
        buffer_bytes: flat copies of gradients for communication, per parameter and not sharded.
        fused_mlp: a gated MLP recomputes its activation in the backward instead of keeping it.
        tp_overlap, pp_overlap: share of that communication hidden where the layout asks for overlap.
    """

    name: str
    flash_attention: bool = True
    gradient_bytes: int = 4
    reduce_bytes: int = 4
    dropout: bool = False
    elementwise_traffic: float = 1.0
    selective_keeps_matmuls: float | None = None
    zero_group: int | None = None
    broadcasts: bool = False
    host_factor: float = 6.0
    gap_seconds: float = 5e-6
    loss_seconds: float = 0.0
    hop_seconds: float = 0.0
    synchronous: bool = False
    score_traffic: float = 1.0
    scatter_bytes: int = 2
    single_rail: bool = False
    logit_bytes: int = 4
    loss_bytes: float = 20.0
    accumulate_bytes: float = 0.0
    buffer_bytes: int = 0
    fused_mlp: bool = False
    tp_overlap: float = 0.7
    pp_overlap: float = 0.9
    source: str = "assumed"


MODERN = Software(
    name="modern",
    loss_bytes=7.39,
    accumulate_bytes=8.0,
    gap_seconds=1e-05,
    elementwise_traffic=2,
    source="flash attention, fp32 gradient accumulation, partly fused element-wise kernels",
)
COMPILED = Software(
    name="compiled",
    elementwise_traffic=1.23,
    scatter_bytes=4,
    fused_mlp=True,
    host_factor=3.0,
    gap_seconds=2e-6,
    source="flash attention, element-wise kernels fused by a compiler",
)
SHARDED = Software(
    name="sharded",
    loss_bytes=33.2,
    logit_bytes=2,
    gap_seconds=1.18e-05,
    elementwise_traffic=3,
    gradient_bytes=2,
    reduce_bytes=2,
    scatter_bytes=4,
    source="PyTorch FSDP: flash attention, eager element-wise kernels, gradients summed in fp32",
)
MATERIALISED = Software(
    name="materialised",
    loss_bytes=35.5,
    loss_seconds=3e-4,
    hop_seconds=3e-5,
    accumulate_bytes=6.0,
    flash_attention=False,
    elementwise_traffic=1.36,
    gradient_bytes=2,
    reduce_bytes=2,
    dropout=True,
    host_factor=11.1,
    gap_seconds=1.91e-06,
    source="2021 to mid-2022 (Megatron-LM): attention scores materialised, fused softmax, dropout",
)
DEEPSPEED = replace(
    MATERIALISED,
    name="deepspeed",
    loss_bytes=66.8,
    loss_seconds=1.3e-3,
    elementwise_traffic=1.55,
    score_traffic=1.65,
    host_factor=18.8,
    source="Megatron-DeepSpeed, 2021 to 2022: as materialised, fewer fused kernels, an engine above",
)
