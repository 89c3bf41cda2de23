"""Plan → Megatron-LM arguments.

Most of Megatron's arguments are named after its config fields. Uneven stages go into
`--pipeline-model-parallel-layout`: `|` separates stages in the order of the model (stage s on rank s mod pp),
`E` is the embedding, `t` a layer, `L` the loss, `*n` repeats.
"""

from __future__ import annotations

import shlex

from launcher.export.export import (
    Export,
    Exporter,
    header,
    layers_of_stages,
    strongest_recompute,
    unsupported,
)
from planner.plan import Plan
from planner.targets import MEGATRON, check_target
from profiles.errors import FieldError

FRAMEWORK = MEGATRON.framework

Argument = tuple[str, ...]


def export_megatron(plan: Plan) -> Export:
    """Return a shell file with the arguments of `pretrain_gpt.py`.

    Raises:
        InfeasibleError: when Megatron-LM cannot run the layout.
    """
    layout = plan.layout
    mode, losses = strongest_recompute(plan)
    uniform = layout.model_copy(update={"recompute": mode})
    try:
        check_target(uniform, plan.model, MEGATRON)
    except FieldError as error:
        raise unsupported(FRAMEWORK, str(error), "search with `cuboid plan --target megatron`") from None
    if layout.overlap.tp:
        losses += ("overlap of tp traffic (needs --tp-comm-overlap and a user-buffer configuration)",)
    arguments = [*_model(plan), *_parallel(plan), *_batch(plan), *_memory(plan, mode)]
    body = "".join(f"    {' '.join(map(shlex.quote, argument))}\n" for argument in arguments)
    text = f"{header(FRAMEWORK, plan, losses)}MEGATRON_ARGUMENTS=(\n{body})\n"
    return Export(
        target="megatron",
        framework=FRAMEWORK,
        files={"megatron.sh": text},
        losses=losses,
        notes=(
            'add data, tokenizer, learning rate and length: pretrain_gpt.py "${MEGATRON_ARGUMENTS[@]}" …',
            f"the tokenizer must give {plan.model.vocab} entries, since the vocabulary is not padded",
        ),
    )


def _model(plan: Plan) -> list[Argument]:
    model = plan.model
    arguments: list[Argument] = [
        ("--num-layers", str(model.layers)),
        ("--hidden-size", str(model.hidden)),
        ("--ffn-hidden-size", str(model.ffn_hidden)),
        ("--num-attention-heads", str(model.heads)),
        ("--kv-channels", str(model.head_dim)),
        ("--seq-length", str(model.seq_len)),
        ("--max-position-embeddings", str(model.seq_len)),
        ("--make-vocab-size-divisible-by", "1"),
        ("--norm-epsilon", f"{model.norm_epsilon:g}"),
    ]
    if model.kv_heads != model.heads:
        arguments += [("--group-query-attention",), ("--num-query-groups", str(model.kv_heads))]
    if model.position == "rope":
        arguments += [("--position-embedding-type", "rope"), ("--rotary-base", f"{model.rope_theta:.0f}")]
    else:
        arguments.append(("--position-embedding-type", "learned_absolute"))
    arguments.append(("--normalization", "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm"))
    if model.gated_mlp and model.activation == "silu":
        arguments.append(("--swiglu",))
    if not model.linear_bias:
        arguments.append(("--disable-bias-linear",))
        if model.attention_bias:
            arguments.append(("--add-qkv-bias",))
    if not model.tied_embeddings:
        arguments.append(("--untie-embeddings-and-output-weights",))
    return arguments


def _parallel(plan: Plan) -> list[Argument]:
    layout = plan.layout
    arguments: list[Argument] = [
        ("--tensor-model-parallel-size", str(layout.tp)),
        ("--pipeline-model-parallel-size", str(layout.pp)),
    ]
    layers = layers_of_stages(plan)
    if layout.stages > 1 and len(set(layers)) > 1:
        arguments.append(("--pipeline-model-parallel-layout", layout_string(layers)))
    elif layout.chunks > 1:
        arguments.append(("--num-virtual-stages-per-pipeline-rank", str(layout.chunks)))
    if layout.sequence_parallel:
        arguments.append(("--sequence-parallel",))
    if layout.rank_order == "tp-pp-dp":
        arguments.append(("--use-tp-pp-dp-mapping",))
    if layout.pp > 1 and layout.chunks > 1 and not layout.overlap.pp:
        arguments.append(("--no-overlap-p2p-communication",))
    return arguments


def layout_string(layers: tuple[int, ...]) -> str:
    """Return Megatron's layout of stages with these layers, embedding and loss included."""
    stages = [f"t*{count}" if count > 1 else "t" * count for count in layers]
    stages[0] = f"E{stages[0]}"
    stages[-1] = f"{stages[-1]}L"
    return "|".join(stages)


def _batch(plan: Plan) -> list[Argument]:
    layout = plan.layout
    arguments: list[Argument] = [
        ("--micro-batch-size", str(layout.microbatch)),
        ("--global-batch-size", str(layout.global_batch)),
    ]
    if layout.precision in {"fp16", "bf16"}:
        arguments.append((f"--{layout.precision}",))
    return arguments


def _memory(plan: Plan, mode: str) -> list[Argument]:
    layout = plan.layout
    arguments: list[Argument] = []
    if mode == "full":
        arguments += [
            ("--recompute-granularity", "full"),
            ("--recompute-method", "uniform"),
            ("--recompute-num-layers", "1"),
        ]
    elif mode == "selective":
        arguments.append(("--recompute-granularity", "selective"))
    if layout.zero == 1:
        arguments.append(("--use-distributed-optimizer",))
    if layout.dp > 1 and layout.overlap.dp:
        arguments.append(("--overlap-grad-reduce",))
        if layout.zero == 1:
            arguments.append(("--overlap-param-gather",))
    return arguments


MEGATRON_EXPORTER = Exporter(name="megatron", framework=FRAMEWORK, export=export_megatron)
