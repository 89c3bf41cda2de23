"""The price of one layout: time by category, memory by rank, and where every group of numbers is from.

step = pipeline of microbatches (simulated) + gradient reduction that nothing hides + optimizer
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from planner.costs import memory, pipeline
from planner.costs.compute import optimizer_seconds
from planner.costs.flops import Number, block_attention_flops, block_matmul_flops, model_flops
from planner.costs.interval import interval
from planner.costs.pipeline import Pipeline
from planner.costs.rates import (
    Pieces,
    agreement_seconds,
    analytic_pieces,
    gathering_seconds,
    measured_pieces,
    reduction_seconds,
    sharded_seconds,
)
from planner.costs.roofline import ELEMENT_BYTES, peak_flops
from planner.costs.software import MODERN, Software
from planner.costs.stages import Stages, price_stages, stage_times
from planner.costs.traffic import DataTraffic, hidden_reduction, sharded_traffic
from planner.costs.usage import memory_usage
from planner.estimate import Estimate, Memory, TimeBreakdown
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import CostTable

# Of a step, for every doubling of the nodes that wait for each other: 530B on 280 → 2,240 A100 loses 3 %
# beyond its gradient reduction (Korthikanti et al. 2022, §6); 7B on 64 → 1,024 loses 4 to 8 % (InternEvo).
STRAGGLER_SHARE = 0.008
MATCHING = ("hidden", "heads", "kv_heads", "head_dim", "ffn_hidden", "gated_mlp", "vocab", "seq_len")


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """An estimate and the intermediate values that explain it."""

    estimate: Estimate
    pieces: Pieces
    stages: Stages
    pipeline: Pipeline
    parameters: tuple[float, ...]  # per rank
    traffic: tuple[DataTraffic, ...]  # per rank
    software: Software
    costs: CostTable | None = None  # measured ones, where they are for this model


def price(
    model: ModelSpec,
    cluster: ClusterSpec,
    layout: Layout,
    *,
    costs: CostTable | None = None,
    software: Software = MODERN,
) -> Estimate:
    """Return what one step of `layout` is expected to cost.

    Measured `costs` replace the device's constants where they were taken for this model.

    Raises:
        ConfigError: when the table lacks a shape that the layout needs.
    """
    return assess(model, cluster, layout, costs=costs, software=software).estimate


def assess(
    model: ModelSpec,
    cluster: ClusterSpec,
    layout: Layout,
    *,
    costs: CostTable | None = None,
    software: Software = MODERN,
) -> Assessment:
    """Price `layout` and keep the intermediate values; see `price`."""
    notes: list[str] = []
    table = _usable(model, costs, notes)
    cores = cores_per_rank(cluster, layout)
    if table is not None:
        pieces = measured_pieces(model, cluster, layout, table, processor_seconds=cores is not None)
    else:
        pieces = analytic_pieces(model, cluster, layout, software)
    stages = price_stages(model, layout, pieces)
    line = _pipeline(layout, pieces, stages, cores)
    if cores is not None:
        notes.append(f"{layout.world_size} ranks share {_cores(cluster)} processors, which is priced")
    parameters = _parameters(model, layout, stages.layers, line.placement)
    time, traffic = _time(cluster, layout, software, table, stages=stages, line=line, parameters=parameters)
    step = sum(time.model_dump().values())
    flops = model_flops(model, layout.global_batch) / layout.world_size
    again = recomputed_flops(model, layout, stages.layers, software) / layout.world_size
    peak = peak_flops(cluster.device, layout.precision)
    usage = memory_usage(
        model,
        cluster,
        layout,
        software,
        layers=stages.layers,
        line=line,
        parameters=parameters,
        costs=table,
    )
    notes += _precision_notes(cluster, layout) + _fullness(cluster, usage)
    spread = interval(cluster, software, measured=table is not None)
    low, high = spread.seconds(step)
    estimate = Estimate(
        step_seconds=step,
        step_seconds_low=low,
        step_seconds_high=high,
        tokens_per_second=layout.global_batch * model.seq_len / step,
        model_flops_per_device=flops / step,
        mfu=flops / step / peak,
        hfu=(flops + again) / step / peak,
        fits=bool(memory.fits(cluster.device, usage.peak_bytes)),
        bubble_fraction=max(0.0, 1 - sum(line.busy) / (len(line.busy) * line.seconds)),
        time=time,
        memory=usage,
        provenance=pieces.origin
        | {
            "pipeline": "simulated schedule",
            "memory": f"counted tensor by tensor, {software.name} code",
            "software": software.source,
            "interval": f"{spread.source} ({spread.runs} runs)" if spread.runs else spread.source,
        },
        notes=tuple(notes),
    )
    return Assessment(
        estimate=estimate,
        pieces=pieces,
        stages=stages,
        pipeline=line,
        parameters=parameters,
        traffic=traffic,
        software=software,
        costs=table,
    )


def _precision_notes(cluster: ClusterSpec, layout: Layout) -> list[str]:
    """Say so where the precision is priced as if it were another."""
    device, precision = cluster.device, layout.precision
    if precision == "fp8":
        return ["fp8 training is not modelled: priced as 16-bit training at the device's fp8 rate, if any"]
    if precision not in device.flops_per_second:
        return [f"{device.name} has no rate for {precision}: priced at its nearest one"]
    return []


def _fullness(cluster: ClusterSpec, usage: Memory) -> list[str]:
    """Say so where the fullest rank leaves less room than fragmentation usually takes."""
    if not memory.tight(cluster.device, usage.peak_bytes):
        return []
    full = usage.peak_bytes / cluster.device.memory_bytes
    return [f"memory is {full:.0%} full: fragmentation may exhaust it"]


def _usable(model: ModelSpec, costs: CostTable | None, notes: list[str]) -> CostTable | None:
    if costs is None:
        return None
    different = [name for name in MATCHING if getattr(costs.model, name) != getattr(model, name)]
    if different:
        notes.append(f"the cost table is for another model ({', '.join(different)}); constants used instead")
        return None
    return costs


def _cores(cluster: ClusterSpec) -> int:
    return (cluster.cores_per_node or cluster.devices_per_node) * cluster.nodes


def _pipeline(layout: Layout, pieces: Pieces, stages: Stages, cores: float | None) -> Pipeline:
    """Run the schedule on paper; with `cores`, the processes of a rank share that many processors."""
    return pipeline.run(
        layout.schedule,
        stage_times(layout, pieces, stages),
        ranks=layout.pp,
        chunks=layout.chunks,
        microbatches=layout.microbatches,
        cores_per_rank=cores,
        actions=layout.actions,
        overlapped=layout.overlapped_steps,
    )


def _all_cores_compute(cluster: ClusterSpec, layout: Layout) -> bool:
    """Tell whether communication beside a backward takes its processors from it, and so hides nothing."""
    return cluster.device.vendor == "cpu" and layout.world_size >= _cores(cluster)


def cores_per_rank(cluster: ClusterSpec, layout: Layout) -> float | None:
    """Return the processors for the processes of a pipeline rank, where there are too few for all."""
    if cluster.device.vendor != "cpu" or layout.world_size <= _cores(cluster):
        return None
    return _cores(cluster) / (layout.tp * layout.dp)


def _parameters(
    model: ModelSpec, layout: Layout, layers: tuple[int, ...], placement: tuple[int, ...]
) -> tuple[float, ...]:
    """Parameters each pipeline rank holds; norms and biases of row-parallel layers are not split over tp."""
    whole = 2 * model.norm_parameters + (2 * model.hidden if model.linear_bias else 0)
    split = model.block_parameters - whole
    held = [0.0] * layout.pp
    for stage, count in enumerate(layers):
        held[placement[stage]] += count * (split / layout.tp + whole)
    table = model.vocab * model.hidden / layout.tp
    held[placement[0]] += table + (model.embedding_parameters - model.vocab * model.hidden)
    held[placement[-1]] += model.norm_parameters
    if not (model.tied_embeddings and placement[0] == placement[-1]):
        held[placement[-1]] += table  # a tied model's last stage holds its own copy
    return tuple(held)


def _time(
    cluster: ClusterSpec,
    layout: Layout,
    software: Software,
    costs: CostTable | None,
    *,
    stages: Stages,
    line: Pipeline,
    parameters: tuple[float, ...],
) -> tuple[TimeBreakdown, tuple[DataTraffic, ...]]:
    traffic = _traffic(cluster, layout, software, costs, stages=stages, line=line, parameters=parameters)
    update = max(_updates(cluster, layout, software, costs, parameters=parameters)) * line.updates
    if costs is not None:
        update += agreement_seconds(layout, costs) + (costs.step_overhead_seconds or 0.0)
    slowest = int(np.argmax(line.busy))
    own = line.stages_of_ranks[slowest]
    m = layout.microbatches

    def total(row: tuple[float, ...]) -> float:
        return float(m * sum(row[s] for s in own))

    parts = {
        "forward": total(stages.forward),
        "backward": total(stages.backward),
        "recompute": total(stages.recompute),
        "tp_comm": total(stages.tp_forward) + total(stages.tp_backward),
    }
    # On shared processors the same work takes longer; each part in proportion.
    stretch = max(1.0, line.busy[slowest] / sum(parts.values())) if line.shared else 1.0
    parts = {name: seconds * stretch for name, seconds in parts.items()}
    bubble = max(0.0, line.seconds - line.busy[slowest])
    waiting = 0.0 if costs is not None else float(straggling(cluster, layout.world_size)) * line.seconds
    parts["pp_comm"] = 0.0 if layout.pp == 1 else max(0.0, line.seconds - bubble - sum(parts.values()))
    exposed = max(0.0, *(each.exposed for each in traffic))
    time = TimeBreakdown(**parts, dp_comm=exposed, optimizer=update, bubble=bubble + waiting)
    return time, traffic


def _traffic(
    cluster: ClusterSpec,
    layout: Layout,
    software: Software,
    costs: CostTable | None,
    *,
    stages: Stages,
    line: Pipeline,
    parameters: tuple[float, ...],
) -> tuple[DataTraffic, ...]:
    """Return what communication over dp adds to every pipeline rank."""
    reduction = cache(lambda held: float(reduction_seconds(cluster, layout, software, held, costs)))
    gathering = cache(lambda held: float(gathering_seconds(cluster, layout, software, held, costs)))
    rows = []
    for held, end, own in zip(parameters, line.ends, line.stages_of_ranks, strict=True):
        blocks = max(1, sum(stages.layers[s] for s in own))
        forward = sum(stages.forward[s] for s in own)
        backward = sum(stages.backward[s] + stages.recompute[s] for s in own)
        whole, late, aside, sharded = reduction(held), reduction(held), 0.0, 0.0
        if line.weight_versions:
            late = whole * line.updates  # an update waits for its own sum
        elif layout.overlap.dp and not _all_cores_compute(cluster, layout):
            # What is summed last: the first block's gradients; with measured costs a whole stage is counted.
            late, aside = hidden_reduction(whole, backward, blocks if costs is None else layout.chunks)
        if costs is None and layout.zero >= 2 and layout.dp > 1:
            phases = sharded_seconds(cluster, layout, software, parameters=held, blocks=blocks)
            work = (forward, backward)
            each = sharded_traffic(work, phases, blocks=blocks, overlap=layout.overlap.dp)
            sharded = each * layout.microbatches
        rows.append(
            DataTraffic(
                reduction=whole,
                late=late,
                beside=aside,
                gathering=line.updates * gathering(held),
                sharded=sharded,
                end=end,
                pipeline=line.seconds,
            )
        )
    return tuple(rows)


def _updates(
    cluster: ClusterSpec,
    layout: Layout,
    software: Software,
    costs: CostTable | None,
    *,
    parameters: tuple[float, ...],
) -> list[float]:
    """Return the seconds of one optimizer step on every pipeline rank."""
    shard = layout.dp if layout.zero else 1
    if costs is not None and costs.optimizer_seconds_per_parameter is not None:
        return [costs.optimizer_seconds_per_parameter * held / shard for held in parameters]
    size, element = memory.gradient_element_bytes(software, layout.precision), ELEMENT_BYTES[layout.precision]
    return [float(optimizer_seconds(cluster.device, held / shard, size, element)) for held in parameters]


def straggling(cluster: ClusterSpec, world_size: Number) -> Number:
    """Return the share of a step in which the ranks of all nodes wait for the slowest node."""
    return STRAGGLER_SHARE * np.log2(np.maximum(1.0, world_size / cluster.devices_per_node))


def recomputed_flops(
    model: ModelSpec, layout: Layout, layers: tuple[int, ...], software: Software = MODERN
) -> float:
    """Return the FLOPs of one step that recomputation repeats, on all devices.

    Full recomputation repeats a block's forward; selective repeats the attention core (Korthikanti et al.
    2022, §5), or the share of the products that the code does not keep.
    """
    kept = software.selective_keeps_matmuls
    matmul, attention = block_matmul_flops(model), block_attention_flops(model)
    each = {
        "none": 0.0,
        "selective": attention if kept is None else (1 - kept) * matmul,
        "full": matmul + attention,
    }
    return layout.global_batch * float(
        sum(count * each[layout.recompute_of(stage)] for stage, count in enumerate(layers))
    )
