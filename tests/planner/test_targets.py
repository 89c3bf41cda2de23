"""What each framework can run, field by field."""

from dataclasses import replace
from typing import Any

import pytest

from planner.layout import Layout
from planner.targets import ANY, CUBOID, MEGATRON, TARGETS, Target, check_target, find_target
from profiles.errors import ConfigError, FieldError
from profiles.presets import model_preset

MODEL = model_preset("llama3.1-8b")


def layout(**fields: Any) -> Layout:
    return Layout(global_batch=32, **fields)


@pytest.mark.parametrize("target", TARGETS)
def test_plain_1f1b_runs_everywhere(target: Target) -> None:
    check_target(layout(tp=2, pp=4, dp=2, sequence_parallel=True, recompute="full"), MODEL, target)


@pytest.mark.parametrize(
    ("target", "fields", "message"),
    [
        (CUBOID, {"dp": 4, "zero": 1}, "zero: this project's runtime runs ZeRO 0, not 1"),
        (CUBOID, {"precision": "fp8"}, "precision: this project's runtime trains in"),
        (MEGATRON, {"pp": 2, "schedule": "pipedream"}, "schedule: Megatron-LM .* not 'pipedream'"),
        (MEGATRON, {"pp": 2, "schedule": "zb-h1"}, "schedule: Megatron-LM .* not 'zb-h1'"),
        (MEGATRON, {"dp": 4, "zero": 3}, "zero: Megatron-LM .* ZeRO 0 or 1, not 3"),
        (MEGATRON, {"rank_order": "pp-dp-tp"}, "rank_order: "),
        (MEGATRON, {"pp": 2, "recompute": ("full", "none")}, "recompute: .* alike on every stage"),
        (
            MEGATRON,
            {"pp": 3, "chunks": 2, "schedule": "interleaved-1f1b"},
            "chunks: .* the 32 microbatches are a multiple of pp = 3",
        ),
    ],
)
def test_what_a_target_cannot_run_is_named(target: Target, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        check_target(layout(**fields), MODEL, target)
    check_target(layout(**{k: v for k, v in fields.items() if k != "precision"}), MODEL, ANY)


def test_a_model_known_only_roughly_is_planned_but_not_run() -> None:
    rough = MODEL.model_copy(update={"approximations": ("a norm on queries and keys",)})
    with pytest.raises(FieldError, match="builds no model with a norm on queries and keys"):
        check_target(layout(), rough, CUBOID)
    check_target(layout(), rough, MEGATRON)


def test_a_tie_across_stages_needs_a_flush() -> None:
    tied = MODEL.model_copy(update={"tied_embeddings": True})
    for target, fields, model in (
        (CUBOID, {"pp": 2, "schedule": "1f1b"}, tied),
        (CUBOID, {"pp": 1, "schedule": "pipedream"}, tied),
        (CUBOID, {"pp": 2, "schedule": "pipedream"}, MODEL),
        (ANY, {"pp": 2, "schedule": "pipedream"}, tied),
    ):
        check_target(layout(**fields), model, target)
    with pytest.raises(FieldError, match="pipedream updates every stage at another time"):
        check_target(layout(pp=2, schedule="pipedream"), tied, CUBOID)
    with pytest.raises(FieldError, match="updates weights while microbatches are in flight"):
        check_target(layout(pp=2, schedule="pipedream"), MODEL, replace(CUBOID, asynchronous=False))


def test_targets_by_name() -> None:
    assert find_target("megatron") is MEGATRON
    with pytest.raises(ConfigError, match="use cuboid, megatron, any"):
        find_target("jax")
