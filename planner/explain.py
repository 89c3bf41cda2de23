"""The formula behind every number of an estimate, with the numbers put in and the source of each constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.costs import Assessment
from planner.costs.communication import LINK_EFFICIENCY, LINK_EFFICIENCY_SOURCES
from planner.costs.flops import block_flops, head_flops
from planner.costs.memory import gradient_element_bytes, reduced_element_bytes
from planner.costs.roofline import ELEMENT_BYTES, peak_flops
from planner.plan import Plan, RankMemory
from profiles.errors import ConfigError
from profiles.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One number: its formula in symbols and with numbers, its value, and where the constants are from."""

    field: str
    formula: str
    numbers: str
    value: float
    text: str
    sources: tuple[str, ...] = ()


def explain(plan: Plan, assessment: Assessment, field: str | None = None) -> list[Explanation]:
    """Explain one field of the estimate (`time.forward`, `memory.weights`, …), or all of them.

    Raises:
        ConfigError: when there is no such field; names those that exist.
    """
    known: dict[str, Callable[[Plan, Assessment], Explanation]] = {
        "step_seconds": _step,
        "tokens_per_second": _tokens,
        "model_flops_per_device": _flops,
        "mfu": _mfu,
        "time.forward": lambda p, a: _phase(p, a, "forward"),
        "time.backward": lambda p, a: _phase(p, a, "backward"),
        "time.recompute": lambda p, a: _phase(p, a, "recompute"),
        "time.tp_comm": _tp,
        "time.pp_comm": _pp,
        "time.dp_comm": _dp,
        "time.optimizer": _optimizer,
        "time.bubble": _bubble,
        "memory.weights": lambda p, a: _state(p, a, "weights"),
        "memory.gradients": lambda p, a: _state(p, a, "gradients"),
        "memory.optimizer": lambda p, a: _state(p, a, "optimizer"),
        "memory.activations": _activations,
        "memory.workspace": _workspace,
        "memory.peak_bytes": _peak,
    }
    if field is None:
        return [build(plan, assessment) for build in known.values()]
    matches = [name for name in known if name == field or name.split(".")[-1] == field]
    if not matches:
        raise ConfigError(f"the estimate has no field '{field}'; use one of {', '.join(known)}")
    return [known[name](plan, assessment) for name in matches]


def _seconds(field: str, formula: str, numbers: str, value: float, *sources: str) -> Explanation:
    return Explanation(
        field=field,
        formula=formula,
        numbers=numbers,
        value=value,
        text=format_seconds(value),
        sources=sources,
    )


def _bytes(field: str, formula: str, numbers: str, value: float, *sources: str) -> Explanation:
    return Explanation(
        field=field, formula=formula, numbers=numbers, value=value, text=format_bytes(value), sources=sources
    )


def _device(plan: Plan, *names: str) -> tuple[str, ...]:
    device = plan.cluster.device
    lines = []
    for name in names:
        value = getattr(device, name)
        if isinstance(value, dict):
            value = f"{format_count(peak_flops(device, plan.layout.precision), 'FLOP/s')} peak"
        lines.append(f"{name} = {value} ({device.name}: {device.sources.get(name, 'assumed')})")
    return tuple(lines)


def _links(plan: Plan) -> tuple[str, ...]:
    return tuple(
        f"{link.name}: {format_bytes(link.bytes_per_second)}/s, {format_seconds(link.latency_seconds)} a hop,"
        f" shared by {link.shared_by:g} ({link.source}); reaches {LINK_EFFICIENCY[link.kind]:.0%}"
        f" ({LINK_EFFICIENCY_SOURCES[link.kind]})"
        for link in plan.cluster.links
    )


def _slowest(assessment: Assessment) -> tuple[int, int]:
    busy = assessment.pipeline.busy
    rank = max(range(len(busy)), key=busy.__getitem__)
    stages = [s for s, owner in enumerate(assessment.pipeline.placement) if owner == rank]
    return rank, sum(assessment.stages.layers[s] for s in stages)


def _step(plan: Plan, assessment: Assessment) -> Explanation:
    parts = {k: v for k, v in assessment.estimate.time.model_dump().items() if v}
    return _seconds(
        "step_seconds",
        "sum of the exposed times of the slowest rank",
        " + ".join(f"{name} {format_seconds(value)}" for name, value in parts.items()),
        assessment.estimate.step_seconds,
        f"pipeline: {assessment.estimate.provenance['pipeline']}",
    )


def _tokens(plan: Plan, assessment: Assessment) -> Explanation:
    value = assessment.estimate.tokens_per_second
    return Explanation(
        field="tokens_per_second",
        formula="global_batch · seq_len / step_seconds",
        numbers=f"{plan.layout.global_batch} · {plan.model.seq_len} / {assessment.estimate.step_seconds:.6g}",
        value=value,
        text=f"{format_count(value)} tokens/s",
    )


def _flops(plan: Plan, assessment: Assessment) -> Explanation:
    model, layout = plan.model, plan.layout
    value = assessment.estimate.model_flops_per_device
    return Explanation(
        field="model_flops_per_device",
        formula="3 · global_batch · (layers · block + head) / (devices · step_seconds), full attention",
        numbers=f"3 · {layout.global_batch} · ({model.layers} · {format_count(block_flops(model), 'FLOP')}"
        f" + {format_count(head_flops(model), 'FLOP')}) / ({layout.world_size}"
        f" · {assessment.estimate.step_seconds:.6g})",
        value=value,
        text=format_count(value, "FLOP/s"),
        sources=("counting rule: Korthikanti et al. 2022, arXiv 2205.05198, eq. 8",),
    )


def _mfu(plan: Plan, assessment: Assessment) -> Explanation:
    peak = peak_flops(plan.cluster.device, plan.layout.precision)
    value = assessment.estimate.mfu or 0.0
    return Explanation(
        field="mfu",
        formula="model_flops_per_device / peak",
        numbers=f"{format_count(assessment.estimate.model_flops_per_device, 'FLOP/s')}"
        f" / {format_count(peak, 'FLOP/s')}",
        value=value,
        text=f"{value:.1%}",
        sources=_device(plan, "flops_per_second"),
    )


def _phase(plan: Plan, assessment: Assessment, name: str) -> Explanation:
    pieces, layout = assessment.pieces, plan.layout
    rank, layers = _slowest(assessment)
    if name == "recompute":
        block = float(pieces.block.recompute(layout.recompute_of(0)))
    else:
        block = float(getattr(pieces.block, name))
    ends = {"embedding": pieces.embedding, "head": pieces.head}
    numbers = f"{layout.microbatches} · ({layers} · {format_seconds(block)} a block"
    if name != "recompute":
        numbers += "".join(f"; {end} {format_seconds(float(getattr(t, name)))}" for end, t in ends.items())
    kernels = sorted(pieces.block.kernels, key=lambda k: -float(k.forward))[:4]
    detail = [
        f"{kernel.name}: forward {format_seconds(float(kernel.forward))},"
        f" backward {format_seconds(float(kernel.backward))}"
        for kernel in kernels
    ]
    constants: tuple[str, ...] = (f"block times: {assessment.estimate.provenance['compute']}",)
    if pieces.block.kernels:
        constants += _device(
            plan, "flops_per_second", "gemm_efficiency", "attention_efficiency", "memory_bytes_per_second",
            "memory_efficiency", "launch_seconds",
        )  # fmt: skip
    return _seconds(
        f"time.{name}",
        "microbatches · (layers of the rank · block + embedding or head), at least the host's time",
        f"{numbers}), slowest pipeline rank {rank}",
        float(getattr(assessment.estimate.time, name)),
        *detail,
        *constants,
    )


def _tp(plan: Plan, assessment: Assessment) -> Explanation:
    pieces, layout = assessment.pieces, plan.layout
    _, layers = _slowest(assessment)
    return _seconds(
        "time.tp_comm",
        "microbatches · layers · (forward + backward + recomputed all-reduces of microbatch · seq · hidden)",
        f"{layout.microbatches} · {layers} · ({format_seconds(float(pieces.tp_forward))}"
        f" + {format_seconds(float(pieces.tp_backward))},"
        f" recomputed {format_seconds(float(pieces.tp_recompute))})",
        assessment.estimate.time.tp_comm,
        *_links(plan),
    )


def _pp(plan: Plan, assessment: Assessment) -> Explanation:
    pieces = assessment.pieces
    return _seconds(
        "time.pp_comm",
        "transfers that a rank waits for; overlapped ones only lengthen the pipeline's ramps",
        f"one hop {format_seconds(float(pieces.hop_seconds))}"
        f" + {format_seconds(float(pieces.hop_latency))} latency",
        assessment.estimate.time.pp_comm,
        *_links(plan),
    )


def _dp(plan: Plan, assessment: Assessment) -> Explanation:
    layout = plan.layout
    size = reduced_element_bytes(assessment.software, layout.precision)
    return _seconds(
        "time.dp_comm",
        "reduction of the gradients over dp, less what the last backward hides"
        + ("; then the updated weights to all ranks" if layout.zero in {1, 2} else ""),
        f"{format_count(max(assessment.parameters))} parameters · {size} bytes over {layout.dp} ranks,"
        f" overlap {'on' if layout.overlap.dp else 'off'}, ZeRO-{layout.zero}",
        assessment.estimate.time.dp_comm,
        *_links(plan),
    )


def _optimizer(plan: Plan, assessment: Assessment) -> Explanation:
    layout = plan.layout
    shard = layout.dp if layout.zero else 1
    return _seconds(
        "time.optimizer",
        "parameters of the rank / ZeRO shards · bytes of one AdamW update / sustained memory bandwidth",
        f"{format_count(max(assessment.parameters))} / {shard}",
        assessment.estimate.time.optimizer,
        *_device(plan, "memory_bytes_per_second", "memory_efficiency"),
    )


def _bubble(plan: Plan, assessment: Assessment) -> Explanation:
    line, layout = assessment.pipeline, plan.layout
    return _seconds(
        "time.bubble",
        "pipeline − busy time of the slowest rank; ideal: (pp − 1) / (chunks · microbatches) of the work",
        f"{format_seconds(line.seconds)} − {format_seconds(max(line.busy))}, + waiting for slow nodes;"
        f" ideal ({layout.pp} − 1) / ({layout.chunks} · {layout.microbatches})"
        f" = {(layout.pp - 1) / (layout.chunks * layout.microbatches):.1%}",
        assessment.estimate.time.bubble,
        f"{layout.schedule}: {assessment.estimate.provenance['pipeline']}",
    )


def _state(plan: Plan, assessment: Assessment, name: str) -> Explanation:
    layout = plan.layout
    weight = ELEMENT_BYTES[layout.precision]
    each = {
        "weights": weight,
        "gradients": gradient_element_bytes(assessment.software, layout.precision),
        "optimizer": 12 if weight < 4 else 2 * weight,
    }[name]
    first = {"weights": 3, "gradients": 2, "optimizer": 1}[name]
    shard = layout.dp if layout.zero >= first else 1
    rank, peak = _peak_rank(assessment)
    return _bytes(
        f"memory.{name}",
        f"parameters of the rank · bytes each / (dp from ZeRO-{first} on)",
        f"{format_count(assessment.parameters[rank])} · {each} / {shard}, pipeline rank {rank}",
        float(getattr(peak, name)),
        f"{layout.precision}; {assessment.software.name} code: {assessment.software.source}",
    )


def _activations(plan: Plan, assessment: Assessment) -> Explanation:
    rank, peak = _peak_rank(assessment)
    held = assessment.pipeline.in_flight[rank]
    return _bytes(
        "memory.activations",
        "kept by the rank's blocks for one microbatch · microbatches in flight",
        f"{format_bytes(peak.activations / held if held else 0.0)} · {held:g}, pipeline rank {rank}",
        peak.activations,
        f"in flight: counted in the {plan.layout.schedule} schedule",
        "tensors of a block: Korthikanti et al. 2022, arXiv 2205.05198, §4",
    )


def _workspace(plan: Plan, assessment: Assessment) -> Explanation:
    rank, peak = _peak_rank(assessment)
    return _bytes(
        "memory.workspace",
        "device context + buffers + the larger of the loss's and one recomputed block's transients",
        f"{format_bytes(plan.cluster.device.context_bytes)} context, pipeline rank {rank}",
        peak.workspace,
        *_device(plan, "context_bytes"),
    )


def _peak(plan: Plan, assessment: Assessment) -> Explanation:
    rank, peak = _peak_rank(assessment)
    parts = ("weights", "gradients", "optimizer", "activations", "workspace")
    return _bytes(
        "memory.peak_bytes",
        "sum on the fullest pipeline rank",
        " + ".join(f"{name} {format_bytes(getattr(peak, name))}" for name in parts) + f", rank {rank}",
        assessment.estimate.memory.peak_bytes,
        *_device(plan, "memory_bytes"),
    )


def _peak_rank(assessment: Assessment) -> tuple[int, RankMemory]:
    rows = assessment.estimate.memory.per_stage
    peak = max(rows, key=lambda row: row.total)
    return peak.rank, peak
