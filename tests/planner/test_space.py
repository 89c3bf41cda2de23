"""The space of layouts, against counting it out."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from planner.costs import price
from planner.layout import Layout, check_layout
from planner.neighbours import neighbours
from planner.pins import Pins
from planner.schedules.families import FAMILIES
from planner.skeletons import divisors
from planner.space import build_space
from planner.targets import ANY, CUBOID, MEGATRON, Target, check_target
from profiles.cluster import ClusterSpec
from profiles.errors import FieldError
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset


def test_divisors() -> None:
    for number in (1, 2, 12, 49, 97, 360):
        assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


def test_degrees_are_all_that_divide_and_fit(small_model: ModelSpec, two_nodes: ClusterSpec) -> None:
    space = build_space(
        small_model, two_nodes, devices=4, global_batch=6, target=CUBOID, pins=Pins(), idle=True
    )
    s = space.skeletons
    found = set(zip(s.tp.tolist(), s.pp.tolist(), s.dp.tolist(), s.microbatch.tolist(), strict=True))
    expected = {
        (tp, pp, dp, micro)
        for tp, pp, dp in product(range(1, 5), repeat=3)
        for micro in range(1, 7)
        if small_model.heads % tp == 0
        and small_model.kv_heads % tp == 0
        and tp * pp * dp <= 4
        and pp <= small_model.layers
        and 6 % (dp * micro) == 0
    }
    assert found == expected
    assert (s.microbatches * s.dp * s.microbatch == 6).all()


def test_count_is_the_number_of_different_layouts(small_model: ModelSpec, two_nodes: ClusterSpec) -> None:
    space = build_space(small_model, two_nodes, devices=4, global_batch=4, target=ANY, pins=Pins())
    choices = space.choices(np.arange(len(space.skeletons)))
    variants = space.variants(choices)
    assert len(variants) == space.count()
    rows = np.stack(
        [
            choices.skeleton[variants.choice],
            choices.sequence_parallel[variants.choice],
            choices.rank_order[variants.choice],
            choices.recompute[variants.choice],
            variants.schedule,
            variants.chunks,
            variants.zero,
        ]
    )
    assert len(np.unique(rows, axis=1).T) == space.count()


def test_a_target_gets_all_that_it_runs_and_nothing_else(
    small_model: ModelSpec, two_nodes: ClusterSpec
) -> None:
    def layouts(target: Target) -> set[Layout]:
        space = build_space(small_model, two_nodes, devices=6, global_batch=12, target=target, pins=Pins())
        choices = space.choices(np.arange(len(space.skeletons)))
        variants = space.variants(choices)
        assert len(variants) == space.count()
        return {space.layout(choices, variants, row) for row in range(len(variants))}

    def runs(layout: Layout) -> bool:
        try:
            check_target(layout, small_model, MEGATRON)
        except FieldError:
            return False
        return True

    free = replace(MEGATRON, whole_rounds=False)
    found, more = layouts(MEGATRON), layouts(free)
    assert found == {layout for layout in more if runs(layout)}
    assert len(found) < len(more)
    assert any(layout.chunks > 1 for layout in found)


def test_tensor_ranks_share_only_sequences_that_divide(
    small_model: ModelSpec, two_nodes: ClusterSpec
) -> None:
    odd = small_model.model_copy(update={"seq_len": 33})
    space = build_space(odd, two_nodes, devices=4, global_batch=4, target=ANY, pins=Pins())
    choices = space.choices(np.arange(len(space.skeletons)))
    variants = space.variants(choices)
    assert (space.skeletons.tp > 1).any()
    assert not choices.sequence_parallel.any()
    assert len(variants) == space.count()
    for row in range(0, len(variants), 50):
        check_layout(space.layout(choices, variants, row), odd)


def test_every_synchronous_family_is_searched() -> None:
    space = build_space(
        model_preset("gpt3-22b"),
        cluster_preset("selene"),
        devices=64,
        global_batch=64,
        target=CUBOID,
        pins=Pins(),
    )
    assert set(space.schedules) == {family.name for family in FAMILIES if family.flush}


@pytest.mark.parametrize("pins", [{"tp": 2}, {"pp": 2, "chunks": 3}, {"zero": 0, "recompute": "full"}])
def test_pins_hold_for_every_layout(
    small_model: ModelSpec, two_nodes: ClusterSpec, pins: dict[str, object]
) -> None:
    space = build_space(small_model, two_nodes, devices=4, global_batch=4, target=ANY, pins=Pins(values=pins))
    choices = space.choices(np.arange(len(space.skeletons)))
    variants = space.variants(choices)
    assert len(variants)
    assert all(Pins(values=pins).match(space.layout(choices, variants, row)) for row in range(len(variants)))


def test_orders_left_out_cost_the_same(small_model: ModelSpec, two_nodes: ClusterSpec) -> None:
    degrees = np.array([[2], [1], [2]])
    keys = {order: neighbours(two_nodes, order, degrees).tolist() for order in ANY.rank_orders}
    layouts = {
        order: Layout(tp=2, dp=2, global_batch=4, rank_order=order, precision="bf16")
        for order in ANY.rank_orders
    }
    steps = {order: price(small_model, two_nodes, layout).step_seconds for order, layout in layouts.items()}
    for a, b in product(ANY.rank_orders, repeat=2):
        if keys[a] == keys[b]:
            assert steps[a] == pytest.approx(steps[b])
    assert keys["tp-dp-pp"] != keys["dp-tp-pp"]
    assert steps["tp-dp-pp"] != pytest.approx(steps["dp-tp-pp"])


@pytest.mark.parametrize(
    ("cluster", "target", "precision"),
    [
        ("dgx1-v100", MEGATRON, "fp16"),  # a V100 has no bf16 units
        ("dgx1-v100", CUBOID, "bf16"),  # and our runtime no fp16
        ("selene", MEGATRON, "bf16"),
        ("cpu-2", ANY, "fp32"),
    ],
)
def test_the_precision_is_the_usual_one_of_device_and_target(
    small_model: ModelSpec, cluster: str, target: Target, precision: str
) -> None:
    machine = cluster_preset(cluster)
    space = build_space(small_model, machine, devices=1, global_batch=1, target=target, pins=Pins())
    assert space.precision == precision
