"""The classes of memory, explained on the fullest pipeline rank."""

from __future__ import annotations

from planner import explain_constants as constants
from planner.costs import Assessment, memory
from planner.costs.compute import Slice
from planner.costs.roofline import ELEMENT_BYTES
from planner.estimate import RankMemory
from planner.explain_entry import Explanation, bytes_entry, device_lines
from planner.plan import Plan
from profiles.units import format_bytes, format_count

PARTS = ("weights", "gradients", "optimizer", "activations", "workspace")


def peak_rank(assessment: Assessment) -> tuple[int, RankMemory]:
    """Return the fullest pipeline rank and its bytes."""
    rows = assessment.estimate.memory.per_stage
    peak = max(rows, key=lambda row: row.total)
    return peak.rank, peak


def state(plan: Plan, assessment: Assessment, name: str) -> Explanation:
    """Explain weights, gradients or optimizer states: what is 1/dp of its parameters from a ZeRO stage on."""
    layout, software = plan.layout, assessment.software
    weight = ELEMENT_BYTES[layout.precision]
    gradient = memory.gradient_element_bytes(software, layout.precision)
    copies = f" + {software.buffer_bytes}" if software.buffer_bytes else ""
    each = {
        "weights": f"{weight}",
        "gradients": f"({gradient}{copies})" if copies else f"{gradient}",
        "optimizer": "12" if weight < 4 else f"{2 * weight}",
    }[name]
    why = {
        "weights": f"one weight in {layout.precision}",
        "gradients": "one accumulated gradient" + (", and its flat copies" if copies else ""),
        "optimizer": "AdamW's two moments" + (" and the fp32 weight, 4 bytes each" if weight < 4 else ""),
    }[name]
    first = {"weights": 3, "gradients": 2, "optimizer": 1}[name]
    shard = layout.dp if layout.zero >= first else 1
    rank, peak = peak_rank(assessment)
    versions = assessment.pipeline.weight_versions
    kept = f" · {versions[rank]} versions" if versions and name == "weights" else ""
    return bytes_entry(
        f"memory.{name}",
        f"parameters of the rank · bytes each / (dp from ZeRO-{first} on)",
        f"{format_count(assessment.parameters[rank])} · {each} / {shard}{kept}, pipeline rank {rank}",
        float(getattr(peak, name)),
        f"bytes each: {why}; {software.name} code: {software.source}",
    )


def activations(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain what is kept from forward to backward."""
    model, layout, software, part = plan.model, plan.layout, assessment.software, _slice(plan)
    rank, peak = peak_rank(assessment)
    held = assessment.pipeline.in_flight[rank]
    own = assessment.pipeline.stages_of_ranks[rank]
    layers: dict[str, int] = {}
    for stage in own:
        mode = layout.recompute_of(stage)
        layers[mode] = layers.get(mode, 0) + assessment.stages.layers[stage]
    terms = [
        f"{count} · {format_bytes(float(memory.block_activation_bytes(model, software, part, mode)))}"
        + (f" ({mode} recomputed)" if mode != "none" else "")
        for mode, count in layers.items()
    ]
    if 0 in own:
        kept = float(memory.embedding_activation_bytes(model, software, part))
        terms.append(f"embedding {format_bytes(kept)}")
    words = f"({' + '.join(terms)}) · {held:.4g}"
    if layout.stages - 1 in own:
        words += f" + head {format_bytes(float(memory.head_activation_bytes(model, software, part)))}"
    return bytes_entry(
        "memory.activations",
        "(layers of the rank · kept by a block + by the embedding) · microbatches in flight + by the head",
        f"{words}, pipeline rank {rank}",
        peak.activations,
        f"in flight: {held:.4g} microbatches through all layers of the rank, counted in the"
        f" {layout.schedule} schedule",
        "tensors of a block: Korthikanti et al. 2022, arXiv 2205.05198, §4",
        f"{software.name} code: {software.source}",
    )


def workspace(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain what is there beside the model: context, buffers and what lives for a moment."""
    layout, software = plan.layout, assessment.software
    rank, peak = peak_rank(assessment)
    context, measured = plan.cluster.device.context_bytes, ""
    if assessment.costs is not None and assessment.costs.process_bytes:
        context = float(assessment.costs.process_bytes)
        measured = f"context: measured on {assessment.costs.machine}"
    terms, rest = [f"context {format_bytes(context)}"], peak.workspace - context
    if layout.dp > 1:
        gathered = float(
            memory.gathered_bytes(plan.model, software, layout.precision, layout.tp, layout.zero)
        )
        terms.append(f"bucket {format_bytes(memory.BUCKET_BYTES)}")
        terms += [f"gathered weights {format_bytes(gathered)}"] if gathered else []
        rest -= memory.BUCKET_BYTES + gathered
    terms.append(f"transients {format_bytes(max(0.0, rest))}")
    return bytes_entry(
        "memory.workspace",
        "device context + buffers + the larger of the loss's and one recomputed block's transients",
        f"{' + '.join(terms)}, pipeline rank {rank}",
        peak.workspace,
        *((measured,) if measured else device_lines(plan, "context_bytes")),
        f"logit_bytes = {software.logit_bytes} ({software.name} code: {software.source})",
        *constants.memory_lines(plan),
    )


def peak_bytes(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain the peak: the sum of the classes on the fullest rank."""
    rank, peak = peak_rank(assessment)
    return bytes_entry(
        "memory.peak_bytes",
        "sum on the fullest pipeline rank",
        " + ".join(f"{name} {format_bytes(getattr(peak, name))}" for name in PARTS)
        + f", pipeline rank {rank}",
        assessment.estimate.memory.peak_bytes,
        *device_lines(plan, "memory_bytes"),
    )


def per_stage(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain the totals of all pipeline ranks, each with its parameters and microbatches in flight."""
    rows, line = assessment.estimate.memory.per_stage, assessment.pipeline
    return bytes_entry(
        "memory.per_stage",
        "of every pipeline rank: weights + gradients + optimizer + activations + workspace",
        "; ".join(
            f"rank {row.rank}: {format_count(assessment.parameters[row.rank])} parameters,"
            f" {line.in_flight[row.rank]:.4g} in flight: "
            + " + ".join(format_bytes(getattr(row, name)) for name in PARTS)
            + f" = {format_bytes(row.total)}"
            for row in rows
        ),
        assessment.estimate.memory.peak_bytes,
        f"the {plan.layout.tp * plan.layout.dp} tp and dp neighbours of each hold the same",
    )


def fits(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain whether it fits; the value is 1 or 0."""
    peak, device = assessment.estimate.memory.peak_bytes, plan.cluster.device
    reserve = memory.FRAGMENTATION * (peak - device.context_bytes)
    return Explanation(
        field="fits",
        formula="memory.peak_bytes ≤ memory of the device; a note where fragmentation may exhaust it",
        numbers=f"{format_bytes(peak)} against {format_bytes(device.memory_bytes)},"
        f" {format_bytes(max(0.0, reserve))} lost to fragmentation",
        value=float(assessment.estimate.fits),
        text="yes" if assessment.estimate.fits else "no",
        sources=(*device_lines(plan, "memory_bytes"), constants.fragmentation_line()),
    )


def _slice(plan: Plan) -> Slice:
    layout = plan.layout
    return Slice(
        microbatch=layout.microbatch,
        tp=layout.tp,
        sequence_parallel=layout.sequence_parallel,
        precision=layout.precision,
    )
