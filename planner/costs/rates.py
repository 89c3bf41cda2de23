"""The times of one layout's pieces: blocks, ends and communication, measured or modelled.

Pieces     one microbatch through a block, the embedding and the head; exposed tp time per block; one hop
           between stages; the reduction of gradients
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from planner.costs import communication, compute, measured
from planner.costs.compute import ComponentTimes, Slice
from planner.costs.flops import Number
from planner.costs.memory import reduced_element_bytes
from planner.costs.roofline import ELEMENT_BYTES
from planner.costs.software import Software
from planner.layout import Layout, Overlap
from profiles.cluster import ClusterSpec, Precision
from profiles.gradient_buckets import bucket_bytes
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import Collective, CostTable

# How a rank alone and ranks that join in collectives take turns with their hosts; see `_starved`.
HOST_BLEND = 4.6
GROUP_BLEND = 2.3
# All-reduces of one block and direction. With sequence parallelism each becomes a reduce-scatter and an
# all-gather of the same volume; the backward's third gather runs beside the input gradient (Korthikanti et
# al. 2022, arXiv 2205.05198, §4.2.2).
TP_COLLECTIVES = 2
# What a collective takes from the compute beside it; fitted to published FSDP runs (a lone pair of kernels:
# 0.126, Hetu-Galvatron@cea12ff hardware profile).
OVERLAP_SLOWDOWN = 0.37


class Degrees(Protocol):
    """What the price of a layout's pieces depends on: a `Layout`, or many of them as columns of arrays."""

    @property
    def tp(self) -> Number:
        """Tensor-parallel degree."""

    @property
    def pp(self) -> Number:
        """Pipeline degree."""

    @property
    def dp(self) -> Number:
        """Data-parallel degree."""

    @property
    def microbatch(self) -> Number:
        """Sequences of one microbatch."""

    @property
    def sequence_parallel(self) -> Number:
        """Whether norms and residuals are split over tp."""

    @property
    def zero(self) -> Number:
        """ZeRO stage."""

    @property
    def precision(self) -> Precision:
        """Training precision."""

    @property
    def overlap(self) -> Overlap:
        """Which communication runs beside computation."""

    def stride(self, axis: Literal["tp", "dp", "pp"], /) -> Number:
        """Return the distance in ranks between neighbours along `axis`."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Seconds of one microbatch on one rank, by piece; `tp_*` are exposed collectives of one block.

    `hop_processor_seconds` is what one message between stages takes of the processor at either end, where
    that is the one that computes.
    """

    block: ComponentTimes
    embedding: ComponentTimes
    head: ComponentTimes
    tp_forward: Number
    tp_backward: Number
    tp_recompute: Number
    tp_embedding: Number
    tp_head: Number
    hop_seconds: Number
    hop_latency: Number
    origin: dict[str, str]
    hop_processor_seconds: float = 0.0
    blend: Number = HOST_BLEND


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds of one microbatch in one stage by category; collectives are the exposed part."""

    forward: Number
    backward: Number
    recompute: Number
    weight_gradient: Number
    tp_forward: Number
    tp_backward: Number

    @property
    def forward_seconds(self) -> Number:
        """Whole forward action."""
        return self.forward + self.tp_forward

    @property
    def backward_seconds(self) -> Number:
        """Whole backward action, recomputation included."""
        return self.backward + self.recompute + self.tp_backward


def stage_phases(pieces: Pieces, layers: Number, *, first: Number, last: Number, recompute: Number) -> Phases:
    """Add up the pieces of a stage of `layers` blocks; numbers, or columns of stages.

    A phase lasts as long as its device work with collectives, or as the host takes to start it if that is
    longer; the wait for the host is counted as computing.
    """

    def total(block: Number, embedding: Number, head: Number) -> Number:
        return layers * block + first * embedding + last * head

    block, embedding, head = pieces.block, pieces.embedding, pieces.head
    tp_forward = total(pieces.tp_forward, pieces.tp_embedding, 0.0)
    tp_recompute = np.where(np.asarray(recompute) == "full", pieces.tp_recompute, 0.0)
    tp_backward = total(pieces.tp_backward + tp_recompute, 0.0, pieces.tp_head)
    again = layers * block.recompute(recompute)
    backward = total(block.backward, embedding.backward, head.backward)
    host_forward = total(block.host_forward, embedding.host_forward, head.host_forward)
    host_backward = total(
        block.host_backward + block.host_recompute(recompute), embedding.host_backward, head.host_backward
    )
    forward = total(block.forward, embedding.forward, head.forward)
    return Phases(
        forward=forward + _starved(forward + tp_forward, host_forward, pieces.blend),
        backward=backward + _starved(backward + again + tp_backward, host_backward, pieces.blend),
        recompute=again,
        weight_gradient=total(block.weight_gradient, embedding.weight_gradient, head.weight_gradient),
        tp_forward=tp_forward,
        tp_backward=tp_backward,
    )


def _starved(device: Number, host: Number, blend: Number) -> Number:
    """Seconds the device waits for the host.

    Where one is far ahead the phase lasts as long as the slower; where both are alike they take turns in
    waiting, since a layer mixes short kernels with long ones. The smaller `blend`, the more they wait; at 1
    every kernel is started after the one before it has ended.
    """
    return (device**blend + host**blend) ** (1 / blend) - device


def analytic_pieces(model: ModelSpec, cluster: ClusterSpec, layout: Degrees, software: Software) -> Pieces:
    """Price the pieces from the device's and links' constants; columns of layouts give columns of times."""
    part = Slice(
        microbatch=layout.microbatch,
        tp=layout.tp,
        sequence_parallel=layout.sequence_parallel,
        precision=layout.precision,
    )
    device = cluster.device
    message = part.element_bytes * layout.microbatch * model.seq_len * model.hidden
    route = communication.path(cluster, layout.tp, layout.stride("tp"))
    reduce = _plain(communication.all_reduce_seconds(route, message))
    gather = _plain(communication.all_gather_seconds(route, message))
    count = TP_COLLECTIVES
    hidden = software.tp_overlap if layout.overlap.tp else 0.0
    hop_route = communication.path(cluster, layout.pp, layout.stride("pp"))
    # Each rank sends its share; without sequence parallelism the receivers gather the whole again.
    hop = _plain(communication.send_seconds(hop_route, message / layout.tp))
    hop = hop + _plain(np.where((hop_route.ranks > 1) & (part.outer_tp < layout.tp), gather, 0.0))
    hop = hop + _plain(np.where(hop_route.ranks > 1, software.hop_seconds, 0.0))
    latency = _plain(np.where(hop_route.ranks > 1, hop_route.outer_hop_seconds, 0.0))
    return Pieces(
        block=compute.block_times(model, device, software, part),
        embedding=compute.embedding_times(model, device, software, part),
        head=compute.head_times(model, device, software, part),
        tp_forward=count * reduce * (1 - hidden),
        tp_backward=count * reduce * (1 - hidden),
        tp_recompute=count * reduce * (1 - hidden),
        tp_embedding=reduce,
        tp_head=reduce,
        hop_seconds=hop - latency,
        hop_latency=latency,
        origin={
            "compute": f"roofline on {device.name}",
            "communication": f"latency and bandwidth of {', '.join(link.name for link in cluster.links)}",
        },
        blend=1.0 if software.synchronous else np.where(np.asarray(layout.tp) > 1, GROUP_BLEND, HOST_BLEND),
    )


def measured_pieces(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, costs: CostTable, *, processor_seconds: bool
) -> Pieces:
    """Take the pieces from a table of measurements.

    Raises:
        ConfigError: when the table lacks this tp or sequence length.
    """

    def times(component: str) -> ComponentTimes:
        return measured.component_times(
            costs,
            component,  # type: ignore[arg-type]
            microbatch=layout.microbatch,
            tp=layout.tp,
            seq_len=model.seq_len,
            sequence_parallel=layout.sequence_parallel,
            precision=layout.precision,
            processor_seconds=processor_seconds,
        )

    size = ELEMENT_BYTES[layout.precision]
    message = size * layout.microbatch * model.seq_len * model.hidden
    if layout.sequence_parallel:  # each half of a block and direction gathers once and scatters once
        reduce = _collective(costs, cluster, layout, "reduce_scatter", axis="tp", message=message)
        reduce += _collective(costs, cluster, layout, "all_gather", axis="tp", message=message / layout.tp)
    else:
        reduce = _collective(costs, cluster, layout, "all_reduce", axis="tp", message=message)
    if processor_seconds:  # they were measured while all ranks shared the processors
        reduce *= min(1.0, (costs.cores or costs.concurrent_ranks) / costs.concurrent_ranks)
    hop = _collective(costs, cluster, layout, "send_recv", axis="pp", message=message)
    return Pieces(
        block=times("block"),
        embedding=times("embedding"),
        head=times("head"),
        tp_forward=2 * reduce,
        tp_backward=2 * reduce,
        tp_recompute=2 * reduce,
        tp_embedding=reduce,
        tp_head=reduce,
        hop_seconds=0.0,
        hop_latency=hop,
        hop_processor_seconds=0.0
        if layout.pp == 1
        else measured.send_processor_seconds(costs, groups=layout.world_size // 2, message_bytes=message),
        origin={
            "compute": f"measured on {costs.machine} under {costs.concurrent_ranks} ranks"
            + measured.between(costs, microbatch=layout.microbatch, tp=layout.tp, seq_len=model.seq_len)
            + measured.stand_in(
                costs,
                tp=layout.tp,
                seq_len=model.seq_len,
                sequence_parallel=layout.sequence_parallel,
                precision=layout.precision,
            ),
            "communication": f"measured on {costs.machine}",
        },
    )


def _collective(
    costs: CostTable,
    cluster: ClusterSpec,
    layout: Layout,
    operation: Collective,
    *,
    axis: str,
    message: float,
) -> float:
    """Seconds of one collective along `axis`: measured, or from the links if it never was."""
    degree = {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp}[axis]
    if degree == 1:
        return 0.0
    ranks = 2 if operation == "send_recv" else degree
    found = measured.collective_seconds(
        costs, operation, ranks=ranks, groups=layout.world_size // degree, message_bytes=message
    )
    if found is not None:
        return found
    route = communication.path(cluster, degree, layout.stride(axis))  # type: ignore[arg-type]
    if operation == "send_recv":
        return float(communication.send_seconds(route, message))
    if operation == "all_gather":
        return float(communication.all_gather_seconds(route, message * degree))
    if operation == "reduce_scatter":
        return float(communication.all_gather_seconds(route, message))
    return float(communication.all_reduce_seconds(route, message))


def reduction_seconds(
    cluster: ClusterSpec, layout: Degrees, software: Software, parameters: Number, costs: CostTable | None
) -> Number:
    """Seconds of the collectives over dp that sum the gradients of a step; measured ones bucket by bucket."""
    gradients = reduced_element_bytes(software, layout.precision) * parameters
    if costs is not None:
        assert isinstance(layout, Layout)
        bucket = min(float(gradients), bucket_bytes(float(gradients) / layout.chunks))
        each = _collective(costs, cluster, layout, "all_reduce", axis="dp", message=bucket)
        return each * float(gradients) / max(1.0, bucket)
    route = communication.path(cluster, layout.dp, layout.stride("dp"))
    reduced = communication.all_reduce_seconds(route, gradients)
    scattered = reduced if software.broadcasts else communication.all_gather_seconds(route, gradients)
    zero = np.asarray(layout.zero)
    return _plain(np.where(zero == 0, reduced, np.where(zero == 1, scattered, 0.0)))


def gathering_seconds(
    cluster: ClusterSpec, layout: Degrees, software: Software, parameters: Number, costs: CostTable | None
) -> Number:
    """Seconds in which ranks of ZeRO-1 and 2 hand out the weights that each has updated; nothing hides it.

    Code that broadcasts sends one message a rank, and each travels round the whole group. With ZeRO-3 the
    forward gathers (`sharded_seconds`). Measured costs have it in the sum of the gradients.
    """
    if costs is not None:
        return 0.0
    group = layout.dp
    if software.zero_group is not None:
        group = np.minimum(layout.dp, software.zero_group)
    route = communication.path(cluster, group, layout.stride("dp"))
    weights = ELEMENT_BYTES[layout.precision] * parameters
    seconds = communication.all_gather_seconds(route, weights, group if software.broadcasts else 1)
    zero = np.asarray(layout.zero)
    return _plain(np.where((zero == 1) | (zero == 2), seconds, 0.0))


def agreement_seconds(layout: Layout, costs: CostTable) -> float:
    """Seconds of the small sums that end a step: the gradient norm over tp and pp, loss and stop over all.

    They were measured with all ranks ready; what ranks wait for each other there is not in it.
    """
    total = 0.0
    for ranks in (layout.tp * layout.pp, layout.world_size):
        if ranks > 1:
            found = measured.collective_seconds(
                costs, "all_reduce", ranks=ranks, groups=layout.world_size // ranks, message_bytes=8
            )
            total += found or 0.0
    return total


def sharded_seconds(
    cluster: ClusterSpec, layout: Degrees, software: Software, *, parameters: Number, blocks: Number
) -> tuple[Number, Number]:
    """Seconds of the collectives of one microbatch with ZeRO-2 or 3: (forward, backward).

    ZeRO-3 gathers the weights block by block in both phases and scatters the gradients; ZeRO-2 keeps whole
    weights, so only the scatter recurs.
    """
    route = communication.path(cluster, layout.dp, layout.stride("dp"))
    if software.single_rail:
        route = replace(route, bytes_per_second=route.bytes_per_second / route.inner_ranks)
    weights = communication.all_gather_seconds(route, ELEMENT_BYTES[layout.precision] * parameters, blocks)
    gradients = communication.all_gather_seconds(route, software.scatter_bytes * parameters, blocks)
    zero = np.asarray(layout.zero)
    forward = np.where(zero >= 3, weights, 0.0)
    return _plain(forward), _plain(np.where(zero >= 2, forward + gradients, 0.0))


def beside(compute_seconds: Number, collective_seconds: Number) -> Number:
    """Seconds that a collective adds to the compute it runs beside.

    It takes multiprocessors and memory bandwidth from the compute while both run.
    """
    both = np.minimum(compute_seconds, collective_seconds)
    return np.maximum(0.0, collective_seconds - compute_seconds) + OVERLAP_SLOWDOWN * both


def _plain(value: Number) -> Number:
    """Return a float for the value of one layout, the array for the values of many."""
    array = np.asarray(value, dtype=float)
    return float(array) if array.ndim == 0 else array
