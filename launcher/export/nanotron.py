"""Plan → nanotron YAML."""

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

FRAMEWORK = "nanotron main of April 2026 (2411b02)"

ENGINES = {"1f1b": "1f1b", "gpipe": "afab"}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def export_nanotron(plan: Plan) -> Export:
    """Return the parts of a nanotron config that follow from the plan.

    Raises:
        InfeasibleError: when nanotron cannot run the layout or the model.
    """
    layout, model = plan.layout, plan.model
    if layout.pp > 1 and layout.schedule not in ENGINES:
        raise unsupported(FRAMEWORK, f"its pipelines run 1f1b or gpipe, not '{layout.schedule}'")
    if model.position != "rope" or model.norm != "rmsnorm" or not model.gated_mlp:
        raise unsupported(FRAMEWORK, "it trains Llama-shaped models (RoPE, RMSNorm, gated MLP)")
    if layout.zero > 1:
        raise unsupported(FRAMEWORK, f"it has ZeRO 0 and 1, not {layout.zero}")
    if layout.precision not in DTYPES:
        raise unsupported(FRAMEWORK, f"precision {layout.precision}")
    mode, losses = strongest_recompute(plan)
    if mode == "selective":
        losses += ("recompute: selective (only whole layers are recomputed)",)
    if layout.rank_order != "tp-dp-pp":
        losses += (f"rank_order: {layout.rank_order} (ranks are always placed tp, then dp, then pp)",)
    if layout.pp > 1:
        layers = ", ".join(map(str, layers_of_stages(plan)))
        losses += (f"layers_per_stage: {layers} (nanotron balances stages by its own cost of each block)",)
    text = header(FRAMEWORK, plan, losses) + dump_yaml(_config(plan, mode))
    return Export(
        target="nanotron",
        framework=FRAMEWORK,
        files={"nanotron.yaml": text},
        losses=losses,
        notes=("add general, data_stages, tokenizer, checkpoints, the learning rate and train_steps",),
    )


def _config(plan: Plan, mode: str) -> dict[str, Any]:
    layout, model = plan.layout, plan.model
    return {
        "model": {
            "dtype": DTYPES[layout.precision],
            "model_config": {
                "is_llama_config": True,
                "hidden_size": model.hidden,
                "intermediate_size": model.ffn_hidden,
                "num_hidden_layers": model.layers,
                "num_attention_heads": model.heads,
                "num_key_value_heads": model.kv_heads,
                "vocab_size": model.vocab,
                "max_position_embeddings": model.seq_len,
                "rms_norm_eps": model.norm_epsilon,
                "rope_theta": model.rope_theta,
                "tie_word_embeddings": model.tied_embeddings,
            },
        },
        "optimizer": {"zero_stage": layout.zero, "accumulate_grad_in_fp32": True},
        "parallelism": {
            "dp": layout.dp,
            "pp": layout.pp,
            "tp": layout.tp,
            "expert_parallel_size": 1,
            "pp_engine": ENGINES.get(layout.schedule, "1f1b"),
            "recompute_layer": mode == "full",
            "tp_mode": "REDUCE_SCATTER" if layout.sequence_parallel else "ALL_REDUCE",
            "tp_linear_async_communication": layout.overlap.tp,
        },
        "tokens": {
            "sequence_length": model.seq_len,
            "micro_batch_size": layout.microbatch,
            "batch_accumulation_per_replica": layout.microbatches,
        },
    }


NANOTRON_EXPORTER = Exporter(name="nanotron", framework=FRAMEWORK, export=export_nanotron)
