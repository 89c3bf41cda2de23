"""Plan → DeepSpeed JSON; pipelines exist only in Python code there, so a snippet comes with it."""

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
from planner.plan import Plan

FRAMEWORK = "DeepSpeed 0.18"


def export_deepspeed(plan: Plan) -> Export:
    """Return the configuration and, for a pipeline, the code that builds its topology.

    Raises:
        InfeasibleError: when DeepSpeed cannot run the layout.
    """
    layout = plan.layout
    if layout.pp > 1 and (layout.schedule != "1f1b" or layout.chunks > 1):
        raise unsupported(
            FRAMEWORK, f"its pipelines run 1f1b with one stage per rank, not '{layout.schedule}'"
        )
    if layout.pp > 1 and layout.zero > 1:
        raise unsupported(FRAMEWORK, f"its pipelines allow ZeRO 0 and 1, not {layout.zero}")
    mode, losses = strongest_recompute(plan)
    if mode == "selective":
        losses += ("recompute: selective (only whole layers are checkpointed)",)
    if layout.tp > 1 and layout.sequence_parallel:
        losses += ("sequence_parallel: true (Megatron's kind is not part of DeepSpeed)",)
    if len(set(layers_of_stages(plan))) > 1:
        losses += ("layers_per_stage (PipelineModule splits layers by itself)",)
    if layout.pp > 1 and layout.rank_order != "tp-dp-pp":
        losses += (f"rank_order: {layout.rank_order} (its topology orders pipe, data, model)",)
    config: dict[str, object] = {
        "train_batch_size": layout.global_batch,
        "train_micro_batch_size_per_gpu": layout.microbatch,
        "gradient_accumulation_steps": layout.microbatches,
        "zero_optimization": {"stage": layout.zero, "overlap_comm": layout.overlap.dp},
        "gradient_clipping": 1.0,
    }
    if layout.precision in {"bf16", "fp16"}:
        config[layout.precision] = {"enabled": True}
    if layout.tp > 1:
        config["tensor_parallel"] = {"autotp_size": layout.tp}
    files = {"deepspeed.json": json.dumps(config, indent=2) + "\n"}
    if layout.pp > 1 or mode != "none":
        files["deepspeed_pipeline.py"] = header(FRAMEWORK, plan, losses) + _snippet(plan, mode)
    return Export(
        target="deepspeed",
        framework=FRAMEWORK,
        files=files,
        losses=losses,
        notes=("add optimizer and scheduler; the model must be given as layers for a pipeline",),
    )


def _snippet(plan: Plan, mode: str) -> str:
    layout = plan.layout
    interval = 1 if mode == "full" else 0
    return f"""
from deepspeed.pipe import PipelineModule
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

topology = PipeModelDataParallelTopology(
    num_pp={layout.pp}, num_mp={layout.tp}, num_dp={layout.dp}
)


def pipeline(layers, loss_fn):
    return PipelineModule(
        layers,
        topology=topology,
        loss_fn=loss_fn,
        partition_method="uniform",
        activation_checkpoint_interval={interval},
    )
"""


DEEPSPEED_EXPORTER = Exporter(name="deepspeed", framework=FRAMEWORK, export=export_deepspeed)
