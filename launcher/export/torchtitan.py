"""Plan → torchtitan job TOML, with the schedule itself as a PyTorch schedule CSV where no name fits.

Written for torchtitan 0.2, the last line with TOML job files; from 0.3 on the same fields are set in a Python
config function.
"""

from __future__ import annotations

import json

from launcher.export.export import (
    Export,
    Exporter,
    header,
    layers_of_stages,
    strongest_recompute,
    unsupported,
)
from planner.layout_schedule import schedule_of
from planner.plan import Plan
from planner.schedules import to_csv

FRAMEWORK = "torchtitan 0.2"

# Families that PyTorch has under a name and runs in the same order.
NAMES = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved-1f1b": "Interleaved1F1B", "looped-bfs": "LoopedBFS"}
CSV_CLASS = "_PipelineScheduleRuntime"

Section = dict[str, object]


def export_torchtitan(plan: Plan) -> Export:
    """Return the job file and, if needed, the schedule.

    Raises:
        InfeasibleError: when torchtitan cannot run the layout.
    """
    layout, model = plan.layout, plan.model
    if layout.precision not in {"bf16", "fp32"}:
        raise unsupported(FRAMEWORK, f"precision {layout.precision}: it trains in bf16 or fp32")
    mode, losses = strongest_recompute(plan)
    losses += _losses(plan)
    files: dict[str, str] = {}
    pipeline = _pipeline(plan)
    if pipeline.get("pipeline_parallel_schedule_csv"):
        files["schedule.csv"] = to_csv(schedule_of(layout))
    sections: dict[str, Section] = {
        "parallelism": _parallelism(plan) | pipeline,
        "training": {
            "local_batch_size": layout.microbatch * (layout.microbatches if layout.pp > 1 else 1),
            "global_batch_size": layout.global_batch,
            "seq_len": model.seq_len,
            "mixed_precision_param": {"bf16": "bfloat16", "fp32": "float32"}[layout.precision],
            "mixed_precision_reduce": "float32",
        },
        "activation_checkpoint": {"mode": mode},
    }
    return Export(
        target="torchtitan",
        framework=FRAMEWORK,
        files={"torchtitan.toml": header(FRAMEWORK, plan, losses) + to_toml(sections), **files},
        losses=losses,
        notes=(
            f"add [model] with a flavor of {model.layers} layers and hidden size {model.hidden}, data,"
            " optimizer and length",
            "from torchtitan 0.3 on, set the same fields in a Python config function",
        ),
    )


def _losses(plan: Plan) -> tuple[str, ...]:
    layout = plan.layout
    losses: tuple[str, ...] = ()
    if layout.tp > 1 and not layout.sequence_parallel:
        losses += ("sequence_parallel: false (torchtitan's tensor parallelism always splits the sequence)",)
    if layout.zero == 1:
        losses += ("zero: 1 (gradients are sharded too, as in ZeRO-2)",)
    if layout.rank_order != "tp-dp-pp":
        losses += (f"rank_order: {layout.rank_order} (the mesh is always tp, then dp, then pp)",)
    if "selective" in strongest_recompute(plan)[0]:
        losses += ("recompute: selective (torchtitan's selective mode saves other operations)",)
    return losses


def _parallelism(plan: Plan) -> Section:
    layout = plan.layout
    sharded = layout.zero > 0
    section: Section = {
        "data_parallel_replicate_degree": 1 if sharded else layout.dp,
        "data_parallel_shard_degree": layout.dp if sharded else 1,
        "tensor_parallel_degree": layout.tp,
        "enable_async_tensor_parallel": layout.overlap.tp,
        "pipeline_parallel_degree": layout.pp,
    }
    if sharded:
        section["fsdp_reshard_after_forward"] = "always" if layout.zero == 3 else "never"
    return section


def _pipeline(plan: Plan) -> Section:
    layout = plan.layout
    if layout.pp == 1:
        return {}
    section: Section = {"pipeline_parallel_microbatch_size": layout.microbatch}
    if layout.schedule in NAMES and not (layout.chunks > 1 and layout.microbatches % layout.pp):
        section["pipeline_parallel_schedule"] = NAMES[layout.schedule]
    else:
        section["pipeline_parallel_schedule"] = CSV_CLASS
        section["pipeline_parallel_schedule_csv"] = "schedule.csv"
    section["module_fqns_per_model_part"] = modules_of_stages(layers_of_stages(plan))
    return section


def modules_of_stages(layers: tuple[int, ...]) -> list[list[str]]:
    """Return the names of the modules that every stage holds."""
    stages: list[list[str]] = []
    first = 0
    for count in layers:
        stages.append([f"layers.{layer}" for layer in range(first, first + count)])
        first += count
    stages[0].insert(0, "tok_embeddings")
    stages[-1] += ["norm", "output"]
    return stages


def to_toml(sections: dict[str, Section]) -> str:
    """Write sections of plain values; JSON's numbers, strings, booleans and lists are TOML's."""
    lines = []
    for name, section in sections.items():
        lines.append(f"\n[{name}]")
        for key, value in section.items():
            if isinstance(value, list):
                rows = "".join(f"    {json.dumps(row)},\n" for row in value)
                lines.append(f"{key} = [\n{rows}]")
            else:
                lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


TORCHTITAN_EXPORTER = Exporter(name="torchtitan", framework=FRAMEWORK, export=export_torchtitan)
