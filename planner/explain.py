"""The formula behind every number of an estimate, with the numbers put in and the source of each constant."""

from __future__ import annotations

from difflib import get_close_matches

from planner import explain_memory, explain_time
from planner.costs import Assessment
from planner.costs.flops import block_flops, head_flops
from planner.costs.interval import interval
from planner.costs.price import recomputed_flops
from planner.costs.roofline import peak_flops
from planner.explain_entry import Builder, Explanation, device_lines, seconds_entry, seconds_text
from planner.plan import Plan
from profiles.errors import ConfigError
from profiles.units import format_count

COUNTING = "counting rule: Korthikanti et al. 2022, arXiv 2205.05198, eq. 8"


def explain(plan: Plan, assessment: Assessment, field: str | None = None) -> list[Explanation]:
    """Explain one field of the estimate (`time.forward`, `memory.weights`, …), or all of them.

    A group (`time`, `memory`) or the last word of a name stands for all that have it.

    Raises:
        ConfigError: when there is no such field; names those that exist.
    """
    matches = [
        name for name in BUILDERS if field is None or field in {name, name.split(".")[0], name.split(".")[-1]}
    ]
    if not matches:
        near = get_close_matches(field or "", BUILDERS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(BUILDERS)}"
        raise ConfigError(f"the estimate has no field '{field}'; {hint}")
    return [BUILDERS[name](plan, assessment) for name in matches]


def _step(_: Plan, assessment: Assessment) -> Explanation:
    parts = {k: v for k, v in assessment.estimate.time.model_dump().items() if v}
    return seconds_entry(
        "step_seconds",
        "sum of the exposed times of the slowest rank",
        " + ".join(f"{name} {seconds_text(value)}" for name, value in parts.items()),
        assessment.estimate.step_seconds,
        f"pipeline: {assessment.estimate.provenance['pipeline']}",
    )


def _end(plan: Plan, assessment: Assessment, end: str) -> Explanation:
    found = interval(plan.cluster, assessment.software, measured=assessment.costs is not None)
    factor = found.low if end == "low" else found.high
    step = assessment.estimate.step_seconds
    return seconds_entry(
        f"step_seconds_{end}",
        f"{'10th' if end == 'low' else '90th'} percentile of measured / predicted of similar runs"
        " · step_seconds",
        f"{factor:g} · {seconds_text(step)}",
        factor * step,
        f"interval: {assessment.estimate.provenance['interval']}",
    )


def _tokens(plan: Plan, assessment: Assessment) -> Explanation:
    value = assessment.estimate.tokens_per_second
    return Explanation(
        field="tokens_per_second",
        formula="global_batch · seq_len / step_seconds",
        numbers=f"{plan.layout.global_batch} · {plan.model.seq_len} / {assessment.estimate.step_seconds:.6g}",
        value=value,
        text=f"{format_count(value)} tokens/s",
        sources=("batch: the layout; seq_len: the model",),
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
        sources=(COUNTING,),
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
        sources=device_lines(plan, "flops_per_second"),
    )


def _hfu(plan: Plan, assessment: Assessment) -> Explanation:
    layout, estimate = plan.layout, assessment.estimate
    peak = peak_flops(plan.cluster.device, layout.precision)
    again = recomputed_flops(plan.model, layout, assessment.stages.layers, assessment.software)
    again /= layout.world_size
    value = estimate.hfu or 0.0
    return Explanation(
        field="hfu",
        formula="(model_flops_per_device + recomputed FLOPs of a device / step_seconds) / peak",
        numbers=f"({format_count(estimate.model_flops_per_device, 'FLOP/s')}"
        f" + {format_count(again, 'FLOP')} / {estimate.step_seconds:.6g}) / {format_count(peak, 'FLOP/s')}",
        value=value,
        text=f"{value:.1%}",
        sources=(
            "recomputed: a block's forward (full), or its attention core (selective)",
            COUNTING,
            *device_lines(plan, "flops_per_second"),
        ),
    )


def _bubble_fraction(_: Plan, assessment: Assessment) -> Explanation:
    line, value = assessment.pipeline, assessment.estimate.bubble_fraction
    ranks = len(line.busy)
    return Explanation(
        field="bubble_fraction",
        formula="1 − busy time of all pipeline ranks / (ranks · pipeline)",
        numbers=f"1 − {sum(line.busy):.6g} s / ({ranks} · {line.seconds:.6g} s)",
        value=value,
        text=f"{value:.1%}",
        sources=(f"pipeline: {assessment.estimate.provenance['pipeline']}",),
    )


BUILDERS: dict[str, Builder] = {
    "step_seconds": _step,
    "step_seconds_low": lambda p, a: _end(p, a, "low"),
    "step_seconds_high": lambda p, a: _end(p, a, "high"),
    "tokens_per_second": _tokens,
    "model_flops_per_device": _flops,
    "mfu": _mfu,
    "hfu": _hfu,
    "bubble_fraction": _bubble_fraction,
    "time.forward": lambda p, a: explain_time.phase(p, a, "forward"),
    "time.backward": lambda p, a: explain_time.phase(p, a, "backward"),
    "time.recompute": explain_time.recompute,
    "time.tp_comm": explain_time.tensor_traffic,
    "time.pp_comm": explain_time.stage_traffic,
    "time.dp_comm": explain_time.data_traffic,
    "time.optimizer": explain_time.optimizer,
    "time.bubble": explain_time.bubble,
    "memory.weights": lambda p, a: explain_memory.state(p, a, "weights"),
    "memory.gradients": lambda p, a: explain_memory.state(p, a, "gradients"),
    "memory.optimizer": lambda p, a: explain_memory.state(p, a, "optimizer"),
    "memory.activations": explain_memory.activations,
    "memory.workspace": explain_memory.workspace,
    "memory.peak_bytes": explain_memory.peak_bytes,
    "memory.per_stage": explain_memory.per_stage,
    "fits": explain_memory.fits,
}
