"""Memory of every pipeline rank, from the bytes of its tensors and what its schedule keeps at once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from planner.costs import memory
from planner.costs.compute import Slice
from planner.costs.pipeline import Pipeline
from planner.costs.software import Software
from planner.estimate import Memory, RankMemory
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import CostTable


def memory_usage(
    model: ModelSpec,
    cluster: ClusterSpec,
    layout: Layout,
    software: Software,
    *,
    layers: tuple[int, ...],
    line: Pipeline,
    parameters: tuple[float, ...],
    costs: CostTable | None,
) -> Memory:
    """Return the bytes of every pipeline rank at its peak, by class.

    Args:
        layers: of every stage.
        line: the schedule, for the stages of a rank and the microbatches it holds at once.
        parameters: of every rank.
        costs: measurements that replace the device's context, or None.
    """
    part = Slice(
        microbatch=layout.microbatch,
        tp=layout.tp,
        sequence_parallel=layout.sequence_parallel,
        precision=layout.precision,
    )
    context = cluster.device.context_bytes
    if costs is not None and costs.process_bytes:
        context = float(costs.process_bytes)
    if layout.dp > 1:
        gathered = memory.gathered_bytes(model, software, layout.precision, layout.tp, layout.zero)
        context += memory.BUCKET_BYTES + float(gathered)
    activations = cache(lambda mode: float(memory.block_activation_bytes(model, software, part, mode)))
    ranks = []
    for rank, (count, own) in enumerate(zip(parameters, line.stages_of_ranks, strict=True)):
        kept, workspace, transient = 0.0, context, 0.0
        for stage in own:
            mode = layout.recompute_of(stage)
            kept += layers[stage] * activations(mode)
            if mode != "none" and layers[stage]:
                transient = max(transient, activations("none"))
        kept *= line.in_flight[rank]
        if 0 in own:
            kept += line.in_flight[rank] * float(memory.embedding_activation_bytes(model, software, part))
        if layout.stages - 1 in own:
            kept += float(memory.head_activation_bytes(model, software, part))
            transient = max(transient, float(memory.head_workspace_bytes(model, software, part)))
        versions = line.weight_versions[rank] if line.weight_versions else 1
        row = {
            "weights": versions * float(memory.weight_bytes(count, layout.precision, layout.dp, layout.zero)),
            "gradients": float(
                memory.gradient_bytes(count, software, layout.precision, layout.dp, layout.zero)
            ),
            "optimizer": float(memory.optimizer_bytes(count, layout.precision, layout.dp, layout.zero)),
            "activations": kept,
            "workspace": workspace + transient,
        }
        ranks.append(RankMemory(rank=rank, **row, total=sum(row.values())))
    return Memory(peak_bytes=max(row.total for row in ranks), per_stage=tuple(ranks))
