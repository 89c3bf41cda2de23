"""The parts of the step time, explained: what each is a sum of, with the seconds put in."""

from __future__ import annotations

from planner import explain_constants as constants
from planner.bubbles import closed_bubble
from planner.costs import Assessment, communication
from planner.costs.compute import Slice
from planner.costs.memory import gradient_element_bytes, reduced_element_bytes
from planner.costs.price import STRAGGLER_SHARE, straggling
from planner.costs.rates import agreement_seconds
from planner.costs.roofline import ELEMENT_BYTES, bandwidth
from planner.explain_entry import (
    Explanation,
    device_lines,
    link_lines,
    seconds_entry,
    seconds_text,
    slowest_rank,
)
from planner.plan import Plan
from profiles.units import format_bytes, format_count

COMPUTE_FIELDS = (
    "flops_per_second", "multiprocessors", "gemm_efficiency", "attention_efficiency",
    "memory_bytes_per_second", "memory_efficiency", "launch_seconds",
)  # fmt: skip
HOST_FIELDS = ("host_factor", "gap_seconds", "elementwise_traffic")


def phase(plan: Plan, assessment: Assessment, name: str) -> Explanation:
    """Explain `time.forward` or `time.backward`."""
    pieces, layout = assessment.pieces, plan.layout
    rank, own = slowest_rank(assessment)
    layers = sum(assessment.stages.layers[s] for s in own)
    terms = [(f"{layers} · {{}} a block", layers, float(getattr(pieces.block, name)))]
    if 0 in own:
        terms.append(("embedding {}", 1, float(getattr(pieces.embedding, name))))
    if layout.stages - 1 in own:
        terms.append(("head {}", 1, float(getattr(pieces.head, name))))
    whole = sum(getattr(assessment.stages, name)[s] for s in own)
    waiting = whole - sum(count * seconds for _, count, seconds in terms)
    terms.append(("waiting for the host {}", 1, max(0.0, waiting)))
    words = " + ".join(text.format(seconds_text(seconds)) for text, _, seconds in terms)
    value = float(getattr(assessment.estimate.time, name))
    launches = sum(float(kernel.launches) for kernel in pieces.block.kernels)
    kernels = [
        f"{kernel.name}: forward {seconds_text(float(kernel.forward))},"
        f" backward {seconds_text(float(kernel.backward))}"
        for kernel in pieces.block.kernels
    ]
    if kernels:
        gap = assessment.software.gap_seconds
        kernels.append(f"a block: the sum of these + {launches:g} launches · {seconds_text(gap)} between two")
    return seconds_entry(
        f"time.{name}",
        "microbatches · (layers of the rank · block + embedding or head + waiting for the host)",
        f"{layout.microbatches} · ({words}){_stretch(layout.microbatches * whole, value)},"
        f" slowest pipeline rank {rank}",
        value,
        *kernels,
        *_compute_sources(plan, assessment),
    )


def recompute(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.recompute`, stage by stage where they recompute differently."""
    layout, block = plan.layout, assessment.pieces.block
    rank, own = slowest_rank(assessment)
    counts: dict[str, int] = {}
    for stage in own:
        mode = layout.recompute_of(stage)
        counts[mode] = counts.get(mode, 0) + assessment.stages.layers[stage]
    terms = [
        f"{layers} · {seconds_text(float(block.recompute(mode)))} ({mode})" for mode, layers in counts.items()
    ]
    value = assessment.estimate.time.recompute
    whole = layout.microbatches * sum(assessment.stages.recompute[s] for s in own)
    sources = _compute_sources(plan, assessment) if value else ()
    return seconds_entry(
        "time.recompute",
        "microbatches · layers of the rank · forward operations of a block that its recomputation repeats",
        f"{layout.microbatches} · ({' + '.join(terms)}){_stretch(whole, value)},"
        f" slowest pipeline rank {rank}",
        value,
        *sources,
    )


def _compute_sources(plan: Plan, assessment: Assessment) -> tuple[str, ...]:
    origin = f"block times: {assessment.estimate.provenance['compute']}"
    if not assessment.pieces.block.kernels:
        return (origin,)
    return (
        origin,
        *device_lines(plan, *COMPUTE_FIELDS),
        *constants.product_lines(),
        *constants.attention_lines(assessment),
        *constants.host_lines(assessment),
        *constants.software_lines(assessment, *HOST_FIELDS, "loss_bytes", "accumulate_bytes"),
    )


def _stretch(own: float, value: float) -> str:
    """Say by how much shared processors stretch `own` seconds, if they do."""
    factor = value / own if own else 1.0
    return f" · {factor:.4g} on shared processors" if factor > 1 + 1e-9 else ""


def tensor_traffic(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.tp_comm`."""
    pieces, layout = assessment.pieces, plan.layout
    rank, own = slowest_rank(assessment)
    layers = sum(assessment.stages.layers[s] for s in own)
    full = sum(assessment.stages.layers[s] for s in own if layout.recompute_of(s) == "full")
    each = f"{seconds_text(float(pieces.tp_forward))} + {seconds_text(float(pieces.tp_backward))}"
    terms = [f"{layers} · ({each})"]
    if full:
        terms.append(f"{full} recomputed · {seconds_text(float(pieces.tp_recompute))}")
    if 0 in own:
        terms.append(f"embedding {seconds_text(float(pieces.tp_embedding))}")
    if layout.stages - 1 in own:
        terms.append(f"head {seconds_text(float(pieces.tp_head))}")
    stages = assessment.stages
    whole = layout.microbatches * sum(stages.tp_forward[s] + stages.tp_backward[s] for s in own)
    value = assessment.estimate.time.tp_comm
    part = Slice(microbatch=layout.microbatch, tp=layout.tp, precision=layout.precision)
    message = part.element_bytes * layout.microbatch * plan.model.seq_len * plan.model.hidden
    return seconds_entry(
        "time.tp_comm",
        "microbatches · (layers of the rank · 2 all-reduces forward and 2 backward, 2 more where all is"
        " recomputed, + 1 of the embedding and 1 of the head)",
        f"{layout.microbatches} · ({' + '.join(terms)}){_stretch(whole, value)},"
        f" slowest pipeline rank {rank}",
        value,
        *_all_reduce(plan, assessment, "tp", message),
        *_traffic_sources(plan, layout.tp),
    )


def stage_traffic(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.pp_comm`."""
    pieces, time, line = assessment.pieces, assessment.estimate.time, assessment.pipeline
    overlap = "on" if plan.layout.overlap.pp else "off"
    words = "0 s: one stage sends nothing"
    if plan.layout.pp > 1:
        parts = (time.forward, time.backward, time.recompute, time.tp_comm)
        words = (
            f"{seconds_text(max(line.busy))} − {' − '.join(map(seconds_text, parts))}, at least 0;"
            f" one hop {seconds_text(float(pieces.hop_seconds))}"
            f" + {seconds_text(float(pieces.hop_latency))} latency, overlap {overlap}"
        )
    return seconds_entry(
        "time.pp_comm",
        "busy time of the slowest rank − its compute and tp traffic: the hops that a rank sits out;"
        " overlapped ones only lengthen the pipeline's ramps, which are in the bubble",
        words,
        time.pp_comm,
        *_traffic_sources(plan, plan.layout.pp),
    )


def data_traffic(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.dp_comm`."""
    layout = plan.layout
    size = reduced_element_bytes(assessment.software, layout.precision)
    rank = max(range(layout.pp), key=lambda r: assessment.traffic[r].exposed)
    row, held = assessment.traffic[rank], assessment.parameters[rank]
    terms = [
        f"{seconds_text(row.late)} after the last backward",
        f"{seconds_text(row.beside)} beside it",
        f"{seconds_text(row.gathering)} of updated weights",
        f"{seconds_text(row.sharded)} of shards",
    ]
    lead = row.pipeline - row.end
    words = f"{' + '.join(terms)} − {seconds_text(lead)} that the rank is done before the pipeline"
    hand_out = "; then the updated weights to all ranks" if layout.zero in {1, 2} else ""
    return seconds_entry(
        "time.dp_comm",
        "reduction of the gradients over dp, less what the last backward hides" + hand_out,
        f"{words}, at least 0; pipeline rank {rank}, overlap {'on' if layout.overlap.dp else 'off'},"
        f" ZeRO-{layout.zero}",
        assessment.estimate.time.dp_comm,
        f"the whole reduction: {format_count(held)} parameters · {size} bytes over {layout.dp} ranks"
        f" in {seconds_text(row.reduction)}",
        *(_all_reduce(plan, assessment, "dp", size * held) if layout.zero == 0 else ()),
        *_traffic_sources(plan, layout.dp),
        *(constants.overlap_lines() if layout.dp > 1 else ()),
    )


def _traffic_sources(plan: Plan, degree: int) -> tuple[str, ...]:
    return (*link_lines(plan), *constants.collective_lines()) if degree > 1 else ()


def _all_reduce(plan: Plan, assessment: Assessment, axis: str, message: float) -> tuple[str, ...]:
    """Return one all-reduce over an axis of the cuboid with its numbers, where it comes from the links."""
    degree = {"tp": plan.layout.tp, "dp": plan.layout.dp}[axis]
    if degree == 1:
        return ()
    if assessment.costs is not None:
        return (f"collectives: {assessment.estimate.provenance['communication']}",)
    route = communication.path(plan.cluster, degree, plan.layout.stride(axis))  # type: ignore[arg-type]
    seconds = float(communication.all_reduce_seconds(route, message))
    volume = 2 * (degree - 1) / degree * message / float(route.bytes_per_second)
    start = communication.START_SECONDS
    return (
        f"one all-reduce: 2 · ({degree} − 1) / {degree} · {format_bytes(message)}"
        f" / {format_count(float(route.bytes_per_second), 'B/s')} = {seconds_text(volume)},"
        f" + {seconds_text(max(0.0, seconds - volume - start))} of hops + {seconds_text(start)} to start"
        f" = {seconds_text(seconds)}",
    )


def optimizer(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.optimizer`."""
    layout, costs = plan.layout, assessment.costs
    shard = layout.dp if layout.zero else 1
    updates = assessment.pipeline.updates
    times = f" · {updates} updates" if updates > 1 else ""
    held = f"{format_count(max(assessment.parameters))} / {shard}"
    value = assessment.estimate.time.optimizer
    if costs is not None:
        rest = agreement_seconds(layout, costs) + (costs.step_overhead_seconds or 0.0)
        each = (value - rest) * shard / max(assessment.parameters) / updates
        return seconds_entry(
            "time.optimizer",
            "parameters of the rank / ZeRO shards · seconds of one parameter + what else ends a step",
            f"{held} · {seconds_text(each)}{times} + {seconds_text(rest)}",
            value,
            f"measured on {costs.machine}",
        )
    gradient = gradient_element_bytes(assessment.software, layout.precision)
    weight = ELEMENT_BYTES[layout.precision]
    device = plan.cluster.device
    return seconds_entry(
        "time.optimizer",
        "parameters of the rank / ZeRO shards · bytes of one AdamW update / sustained memory bandwidth"
        " + 4 kernels",
        f"{held} · (2 · {gradient} of the gradient + 3 · 8 of weight and moments + {weight}) B"
        f" / {format_count(bandwidth(device), 'B/s')}{times}",
        value,
        *device_lines(plan, "memory_bytes_per_second", "memory_efficiency"),
    )


def bubble(plan: Plan, assessment: Assessment) -> Explanation:
    """Explain `time.bubble`, the closed form beside it."""
    line, layout = assessment.pipeline, plan.layout
    share = 0.0 if assessment.costs is not None else float(straggling(plan.cluster, layout.world_size))
    idle = max(0.0, line.seconds - max(line.busy))
    return seconds_entry(
        "time.bubble",
        "pipeline − busy time of the slowest rank + waiting for slow nodes",
        f"{seconds_text(line.seconds)} − {seconds_text(max(line.busy))}"
        f" + {STRAGGLER_SHARE} · {share / STRAGGLER_SHARE:.4g} doublings · {seconds_text(line.seconds)}",
        assessment.estimate.time.bubble,
        f"simulated: {seconds_text(idle)}, {layout.schedule}",
        f"closed form: {closed_bubble(layout, assessment.stages, assessment.pipeline)}",
        *(constants.straggler_lines() if share else ()),
    )
