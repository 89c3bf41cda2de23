"""Pins that cannot be met name the field and what would do; the others find exactly what they ask for."""

import pytest

from planner.pins import parse_pins
from planner.space import build_space
from planner.targets import ANY, CUBOID, MEGATRON, Target
from profiles.cluster import ClusterSpec
from profiles.errors import FieldError, InfeasibleError
from profiles.model import ModelSpec


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("sequence_parallel=true,tp=1", CUBOID, "sequence_parallel: tp = 1 has no ranks to split"),
        ("schedule=1f1b,chunks=2", CUBOID, r"chunks: a rank of 1f1b holds 1 chunk, not 2"),
        ("schedule=zb-v,chunks=1", CUBOID, r"chunks: a rank of zb-v holds 2 chunks, not 1"),
        (
            "schedule=interleaved-1f1b,chunks=1",
            CUBOID,
            "chunks: a rank of interleaved-1f1b holds 2 chunks or",
        ),
        (
            "rank_order=pp-tp-dp",
            MEGATRON,
            "rank_order: Megatron-LM core 0.16 has tp-dp-pp, tp-pp-dp, not pp-",
        ),
        ("schedule=foo", ANY, "schedule: there is no schedule 'foo'; use one of naive"),
        ("zero=2", MEGATRON, "zero: Megatron-LM core 0.16 has 0, 1, not 2"),
        ("precision=fp64", MEGATRON, "precision: Megatron-LM core 0.16 has fp32, fp16, bf16, not fp64"),
        ("schedule=zb-v,pp=3", ANY, "pp: pp · chunks = 3 · 2 = 6 stages for 4 layers"),
    ],
)
def test_pins_that_nothing_meets(
    small_model: ModelSpec, two_nodes: ClusterSpec, text: str, target: Target, message: str
) -> None:
    model = small_model.model_copy(update={"layers": 4})
    with pytest.raises(FieldError, match=message):
        build_space(
            model, two_nodes, devices=4, global_batch=8, target=target, pins=parse_pins(text), idle=True
        )


def test_pins_that_exclude_each_other_are_named(small_model: ModelSpec, two_nodes: ClusterSpec) -> None:
    pins = parse_pins("sequence_parallel=true,dp=4")
    with pytest.raises(InfeasibleError, match=r"up to 4 devices .* has sequence_parallel=true,dp=4: none"):
        build_space(small_model, two_nodes, devices=4, global_batch=8, target=ANY, pins=pins)


def test_zero_without_data_parallelism_is_what_was_asked_for(
    small_model: ModelSpec, two_nodes: ClusterSpec
) -> None:
    pins = parse_pins("zero=1,dp=1")
    space = build_space(small_model, two_nodes, devices=4, global_batch=8, target=ANY, pins=pins)
    assert space.count() > 0
