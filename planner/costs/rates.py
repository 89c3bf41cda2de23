"""The times of one layout's pieces: blocks, ends and communication, measured or modelled.

Pieces     one microbatch through a block, the embedding and the head; exposed tp time per block; one hop
           between stages; the reduction of gradients
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.costs import communication, compute, measured
from planner.costs.compute import ComponentTimes, Slice
from planner.costs.flops import Number
from planner.costs.memory import gradient_element_bytes
from planner.costs.software import Software
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.costs import Collective, CostTable
from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Seconds of one microbatch on one rank, by piece; `tp_*` are exposed collectives of one block."""

    block: ComponentTimes
    embedding: ComponentTimes
    head: ComponentTimes
    tp_forward: float
    tp_backward: float
    tp_recompute: float
    tp_embedding: float
    tp_head: float
    hop_seconds: float
    hop_latency: float
    origin: dict[str, str]


def tp_collectives(layout_sequence_parallel: Number) -> tuple[Number, Number]:
    """All-reduces of one block and direction, and all-gathers that sequence parallelism adds in the backward.

    With sequence parallelism each all-reduce becomes a reduce-scatter and an all-gather of the same volume;
    the backward gathers the inputs of both column-parallel products again (Korthikanti et al. 2022, §4.2).
    """
    return 2, np.where(layout_sequence_parallel, 2, 0)


def analytic_pieces(model: ModelSpec, cluster: ClusterSpec, layout: Layout, software: Software) -> Pieces:
    """Price the pieces from the device's and links' constants."""
    part = Slice(
        microbatch=layout.microbatch,
        tp=layout.tp,
        sequence_parallel=layout.sequence_parallel,
        precision=layout.precision,
    )
    device = cluster.device
    message = part.element_bytes * layout.microbatch * model.seq_len * model.hidden
    route = communication.path(cluster, layout.tp, layout.stride("tp"))
    reduce = float(communication.all_reduce_seconds(route, message))
    gather = float(communication.all_gather_seconds(route, message))
    count, gathers = tp_collectives(layout.sequence_parallel)
    hidden = software.tp_overlap if layout.overlap.tp else 0.0
    hop_route = communication.path(cluster, layout.pp, layout.stride("pp"))
    hop = float(
        communication.send_seconds(hop_route, message / (layout.tp if layout.sequence_parallel else 1))
    )
    latency = float(hop_route.outer_hop_seconds) if layout.pp > 1 else 0.0
    return Pieces(
        block=compute.block_times(model, device, software, part),
        embedding=compute.embedding_times(model, device, software, part),
        head=compute.head_times(model, device, software, part),
        tp_forward=count * reduce * (1 - hidden),
        tp_backward=count * reduce * (1 - hidden) + float(gathers) * gather * (1 - hidden),
        tp_recompute=count * reduce * (1 - hidden),
        tp_embedding=reduce,
        tp_head=reduce,
        hop_seconds=hop - latency,
        hop_latency=latency,
        origin={
            "compute": f"roofline on {device.name}",
            "communication": f"latency and bandwidth of {', '.join(link.name for link in cluster.links)}",
        },
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
            processor_seconds=processor_seconds,
        )

    size = compute.ELEMENT_BYTES[layout.precision]
    message = size * layout.microbatch * model.seq_len * model.hidden
    reduce = _collective(costs, cluster, layout, "all_reduce", axis="tp", message=message)
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
        origin={
            "compute": f"measured on {costs.machine} under {costs.concurrent_ranks} ranks",
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
    return float(communication.all_reduce_seconds(route, message))


def reduction_seconds(
    cluster: ClusterSpec, layout: Layout, software: Software, parameters: float, costs: CostTable | None
) -> float:
    """Seconds to reduce `parameters` gradients over dp, and with ZeRO to gather the weights."""
    if layout.dp == 1:
        return 0.0
    gradients = gradient_element_bytes(software, layout.precision) * parameters
    if costs is not None:
        return _collective(costs, cluster, layout, "all_reduce", axis="dp", message=gradients)
    route = communication.path(cluster, layout.dp, layout.stride("dp"))
    if layout.zero == 0:
        return float(communication.all_reduce_seconds(route, gradients))
    weights = compute.ELEMENT_BYTES[layout.precision] * parameters
    return float(
        communication.all_gather_seconds(route, gradients) + communication.all_gather_seconds(route, weights)
    )
