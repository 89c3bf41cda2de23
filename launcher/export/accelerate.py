"""Plan → accelerate YAML, through its Megatron-LM plug-in where the model is split over ranks."""

from __future__ import annotations

from typing import Any

from launcher.export.export import (
    Export,
    Exporter,
    header,
    layers_of_stages,
    strongest_recompute,
    unsupported,
)
from planner.plan import Plan
from profiles.documents import dump_yaml

FRAMEWORK = "accelerate 1.12"

MIXED_PRECISION = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}


def export_accelerate(plan: Plan) -> Export:
    """Return the configuration for `accelerate launch --config_file`.

    Raises:
        InfeasibleError: when accelerate cannot run the layout.
    """
    layout = plan.layout
    if layout.precision not in MIXED_PRECISION:
        raise unsupported(FRAMEWORK, f"precision {layout.precision}")
    if layout.pp > 1 and (layout.schedule != "1f1b" or layout.chunks > 1):
        raise unsupported(FRAMEWORK, f"its Megatron-LM plug-in runs 1f1b, not '{layout.schedule}'")
    split = layout.tp * layout.pp > 1
    if split and layout.zero > 1:
        raise unsupported(FRAMEWORK, f"its Megatron-LM plug-in has ZeRO 0 and 1, not {layout.zero}")
    mode, losses = strongest_recompute(plan)
    if split and mode == "full":
        losses += ("recompute: full (the plug-in's switch is Megatron's selective recomputation)",)
    if not split and mode != "none":
        losses += (f"recompute: {mode} (call model.gradient_checkpointing_enable() in the script)",)
    if layout.rank_order != "tp-dp-pp" and split:
        losses += (f"rank_order: {layout.rank_order} (ranks are placed tp, then dp, then pp)",)
    if len(set(layers_of_stages(plan))) > 1:
        losses += ("layers_per_stage (the plug-in splits layers evenly)",)
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": MIXED_PRECISION[layout.precision],
        "num_machines": -(-layout.world_size // plan.cluster.devices_per_node),
        "num_processes": layout.world_size,
    }
    config |= _megatron(plan, mode) if split else _data_parallel(plan)
    return Export(
        target="accelerate",
        framework=FRAMEWORK,
        files={"accelerate.yaml": header(FRAMEWORK, plan, losses) + dump_yaml(config)},
        losses=losses,
        notes=(
            f"give the script {layout.microbatch} sequences per device and"
            f" {layout.microbatches} accumulation steps; set machine_rank and main_process_ip per machine",
        ),
    )


def _megatron(plan: Plan, mode: str) -> dict[str, Any]:
    layout = plan.layout
    return {
        "distributed_type": "MEGATRON_LM",
        "megatron_lm_config": {
            "megatron_lm_tp_degree": layout.tp,
            "megatron_lm_pp_degree": layout.pp,
            "megatron_lm_num_micro_batches": layout.microbatches,
            "megatron_lm_sequence_parallelism": layout.sequence_parallel,
            "megatron_lm_recompute_activations": mode != "none",
            "megatron_lm_use_distributed_optimizer": layout.zero == 1,
            "megatron_lm_gradient_clipping": 1.0,
        },
    }


def _data_parallel(plan: Plan) -> dict[str, Any]:
    layout = plan.layout
    if layout.zero == 0:
        return {"distributed_type": "MULTI_GPU" if layout.dp > 1 else "NO"}
    return {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "zero_stage": layout.zero,
            "gradient_accumulation_steps": layout.microbatches,
            "gradient_clipping": 1.0,
        },
    }


ACCELERATE_EXPORTER = Exporter(name="accelerate", framework=FRAMEWORK, export=export_accelerate)
