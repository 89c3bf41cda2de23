"""The search, against pricing every layout of the space."""

import dataclasses

import numpy as np
import pytest

from planner.assemble import assemble
from planner.columns import layer_times
from planner.costs import MODERN, price
from planner.frontier import Candidate, Frontier
from planner.layout import Layout
from planner.pins import Pins
from planner.rank_bounds import Pricing
from planner.ranking import TIE, row_key
from planner.search import search
from planner.space import Space, build_space
from planner.targets import ANY, MEGATRON, find_target
from profiles.cluster import ClusterSpec
from profiles.errors import FieldError, InfeasibleError
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset


def every_candidate(space: Space) -> list[Candidate]:
    choices = space.choices(np.arange(len(space.skeletons)))
    variants = space.variants(choices)
    times = layer_times(space, choices, MODERN, None)
    return [
        Candidate(
            expected_seconds=0.0, bound_seconds=0.0, choices=choices, times=times, variants=variants, row=row
        )
        for row in range(len(variants))
    ]


@pytest.mark.parametrize(
    ("pins", "memory_gib"),
    [
        ({"schedule": "1f1b", "zero": 0}, 80.0),
        ({"schedule": "1f1b", "dp": 1}, 3.6),
        ({"pp": 3, "microbatch": 2}, 80.0),
        ({"tp": 1, "dp": 1, "microbatch": 1}, 3.6),
        ({"zero": 1, "pp": 2, "microbatch": 1, "dp": 2}, 3.6),
    ],
)
def test_best_is_that_of_pricing_every_layout(
    small_model: ModelSpec, two_nodes: ClusterSpec, pins: dict[str, object], memory_gib: float
) -> None:
    device = two_nodes.device.model_copy(update={"memory_bytes": int(memory_gib * 2**30)})
    cluster = two_nodes.model_copy(update={"device": device})
    space = build_space(small_model, cluster, devices=4, global_batch=4, target=ANY, pins=Pins(values=pins))
    pricing = Pricing(model=small_model, cluster=cluster, software=MODERN)
    best = np.inf
    for candidate in every_candidate(space):
        layout = assemble(space, pricing, candidate)
        if layout is not None:
            estimate = price(small_model, cluster, layout)
            best = min(best, estimate.step_seconds if estimate.fits else np.inf)
    found = search(
        small_model,
        cluster,
        devices=4,
        global_batch=4,
        pins=pins,
        target="any",
        top=3,
        effort=10**9,
    )
    assert min(plan.estimate.step_seconds for plan in (*found.plans, *found.others)) == best
    assert found.best.estimate.step_seconds <= best * (1 + TIE)
    assert found.gap == 0.0


def test_a_layout_that_only_zero_2_fits_is_found() -> None:
    # ZeRO-3 gathers whole blocks, which are most of a model of three layers: it takes more than ZeRO-2.
    model = ModelSpec(layers=3, hidden=8192, heads=3, head_dim=32, ffn_hidden=6144, vocab=256, seq_len=64)
    cluster = cluster_preset("l40s-8")
    layout = Layout(tp=3, dp=2, microbatch=3, global_batch=6, zero=2)
    room = int(price(model, cluster, layout).memory.peak_bytes * 1.001)
    lean = price(model, cluster, layout.model_copy(update={"zero": 3})).memory.peak_bytes
    assert lean > room
    device = cluster.device.model_copy(update={"memory_bytes": room})
    pins = {"tp": 3, "dp": 2, "microbatch": 3}
    small = cluster.model_copy(update={"device": device})
    found = search(model, small, devices=6, global_batch=6, target="any", pins=pins)
    assert found.best.layout.zero == 2


@pytest.mark.parametrize(
    ("model", "cluster", "devices", "global_batch"),
    [
        ("gpt3-22b", "selene", 8, 16),
        ("llama3.1-8b", "dgx-h100", 24, 48),
        ("gpt2-large", "dgx1-v100", 12, 24),
        ("gpt3-3.6b", "rtx4090-8", 32, 64),
    ],
)
def test_bounds_are_never_above_the_price(model: str, cluster: str, devices: int, global_batch: int) -> None:
    spec, machine = model_preset(model), cluster_preset(cluster).with_nodes(-(-devices // 8))
    space = build_space(spec, machine, devices=devices, global_batch=global_batch, target=ANY, pins=Pins())
    pricing = Pricing(model=spec, cluster=machine, software=MODERN)
    generous = machine.device.model_copy(update={"memory_bytes": 2**50})
    roomy = Pricing(model=spec, cluster=machine.model_copy(update={"device": generous}), software=MODERN)
    frontier = Frontier(dataclasses.replace(space, cluster=roomy.cluster), roomy)
    chance = np.random.default_rng(7)
    checked = 0
    for candidate in frontier:
        if chance.random() > 0.01:
            continue
        layout = assemble(space, roomy, candidate)
        assert layout is not None
        estimate = price(spec, roomy.cluster, layout)
        bound = candidate.bound_seconds
        assert bound <= estimate.step_seconds * (1 + 1e-9), layout
        checked += 1
        if checked == 60:
            break
    assert checked > 30
    assert pricing.cluster.device.memory_bytes < 2**50


def test_selective_recomputation_gains_nothing_beside_flash_attention() -> None:
    # So the search leaves it out unless it is pinned.
    model, cluster = model_preset("gpt3-22b"), cluster_preset("selene").with_nodes(1)
    none, selective = (
        price(model, cluster, Layout(tp=8, global_batch=4, microbatch=4, recompute=mode))
        for mode in ("none", "selective")
    )
    assert selective.memory.peak_bytes >= none.memory.peak_bytes
    assert selective.step_seconds >= none.step_seconds
    found = search(
        model, cluster, devices=8, global_batch=4, pins={"recompute": "selective", "tp": 8, "dp": 1}, top=1
    )
    assert found.best.layout.recompute == "selective"


def test_per_stage_recomputation_beats_recomputing_everywhere(two_nodes: ClusterSpec) -> None:
    # Under 1F1B only the first ranks are short of memory.
    model = model_preset("gpt3-3.6b")
    device = two_nodes.device.model_copy(update={"memory_bytes": 28 * 2**30})
    cluster = two_nodes.model_copy(update={"device": device})
    pins = {"pp": 4, "tp": 1, "schedule": "1f1b", "microbatch": 4}
    found = search(model, cluster, devices=4, global_batch=64, pins=pins, top=20, effort=10**7)
    mixed = [plan for plan in found.plans if not isinstance(plan.layout.recompute, str)]
    full = search(model, cluster, devices=4, global_batch=64, pins=pins | {"recompute": "full"}, top=1)
    assert mixed and found.best in mixed
    assert found.best.estimate.step_seconds < full.best.estimate.step_seconds


def test_every_plan_fits_and_honours_pins_batch_and_devices(
    two_nodes: ClusterSpec, small_model: ModelSpec
) -> None:
    found = search(small_model, two_nodes, devices=3, global_batch=6, pins={"sequence_parallel": False})
    for plan in found.plans:
        assert plan.estimate.fits
        assert not plan.layout.sequence_parallel
        assert plan.layout.global_batch == 6
        assert plan.layout.world_size <= 3
    steps = [plan.estimate.step_seconds for plan in found.plans]
    assert steps[1:] == sorted(steps[1:])
    assert steps[0] <= min(steps) * (1 + TIE)


def test_devices_stay_idle_where_that_is_the_only_way() -> None:
    # 7 devices, a batch of 4 and 12 heads: only 6 of them, or fewer, can work together.
    found = search(model_preset("gpt2"), cluster_preset("selene"), devices=7, global_batch=4)
    assert found.best.layout.world_size < 7
    with pytest.raises(InfeasibleError, match="none exists"):
        search(
            model_preset("gpt2"),
            cluster_preset("selene"),
            devices=7,
            global_batch=4,
            idle=False,
            pins={"pp": 1},
        )


def test_megatron_gets_only_what_megatron_runs() -> None:
    found = search(
        model_preset("gpt3-22b"), cluster_preset("selene"), devices=16, global_batch=16, target="megatron"
    )
    for plan in found.plans:
        assert plan.layout.schedule in {"1f1b", "interleaved-1f1b"}
        assert plan.layout.zero in MEGATRON.zeros
        assert plan.layout.chunks == 1 or plan.layout.microbatches % plan.layout.pp == 0
        assert isinstance(plan.layout.recompute, str)


def test_what_does_not_fit_is_refused_with_a_count() -> None:
    with pytest.raises(InfeasibleError, match=r"refused: [\d,]+ for memory"):
        search(model_preset("gpt3-1t"), cluster_preset("selene"), devices=8, global_batch=8)


def test_an_impossible_pin_names_its_field() -> None:
    with pytest.raises(FieldError, match="3 does not divide 64 heads"):
        search(model_preset("gpt3-22b"), cluster_preset("selene"), devices=8, global_batch=8, pins={"tp": 3})
    with pytest.raises(FieldError, match="does not divide the global batch 8"):
        search(model_preset("gpt3-22b"), cluster_preset("selene"), devices=8, global_batch=8, pins={"dp": 3})


@pytest.mark.parametrize("zero", [2, 3])
def test_bounds_hold_where_every_microbatch_communicates_over_dp(zero: int) -> None:
    model, cluster = model_preset("gpt3-3.6b"), cluster_preset("rtx4090-8").with_nodes(4)
    pins = Pins(values={"zero": zero, "sequence_parallel": False, "rank_order": "tp-dp-pp"})
    space = build_space(model, cluster, devices=32, global_batch=32, target=ANY, pins=pins)
    pricing = Pricing(model=model, cluster=cluster, software=MODERN)
    checked, shares = 0, []
    for candidate in Frontier(space, pricing):
        layout = assemble(space, pricing, candidate)
        if layout is not None and layout.dp > 1 and not candidate.mixed:
            estimate = price(model, cluster, layout)
            assert candidate.bound_seconds <= estimate.step_seconds * (1 + 1e-9), layout
            shares.append(candidate.bound_seconds / estimate.step_seconds)
            checked += 1
        if checked == 60:
            break
    assert checked == 60
    assert np.median(shares) > 0.75  # a bound that forgets this traffic is far below


def test_slow_links_are_seen_before_anything_is_simulated() -> None:
    model, cluster = model_preset("gpt3-7.5b"), cluster_preset("rtx4090-8").with_nodes(64)
    found = search(model, cluster, devices=512, global_batch=128)
    known = Layout(tp=4, pp=19, dp=2, global_batch=128, schedule="zb-h2", sequence_parallel=True)
    assert found.best.estimate.step_seconds <= price(model, cluster, known).step_seconds * (1 + TIE)


def test_search_is_deterministic() -> None:
    once, again = (
        search(model_preset("gpt3-22b"), cluster_preset("selene"), devices=8, global_batch=4, effort=50_000)
        for _ in range(2)
    )
    assert [p.layout for p in once.plans] == [p.layout for p in again.plans]
    assert find_target("cuboid").name == "cuboid"


@pytest.mark.parametrize("effort", [1, 300, 3000])
def test_a_search_cut_short_says_how_far_it_may_be_off(
    small_model: ModelSpec, two_nodes: ClusterSpec, effort: int
) -> None:
    pins = {"microbatch": 1, "dp": 1}
    whole = search(small_model, two_nodes, devices=4, global_batch=8, pins=pins, effort=10**9)
    short = search(small_model, two_nodes, devices=4, global_batch=8, pins=pins, effort=effort)
    fastest, found = (
        min(plan.estimate.step_seconds for plan in (*result.plans, *result.others))
        for result in (whole, short)
    )
    assert whole.gap == 0.0
    assert found * (1 - short.gap) <= fastest <= found


def test_layouts_that_gain_nothing_by_another_schedule_share_a_row() -> None:
    found = search(model_preset("gpt3-22b"), cluster_preset("selene"), devices=16, global_batch=32)
    keys = [row_key(plan.layout) for plan in found.plans]
    for number, plan in enumerate(found.plans):
        for other in plan.alike:
            assert row_key(other.layout) == keys[number]
            assert other.estimate.step_seconds * (1 + TIE) >= plan.estimate.step_seconds
    assert any(plan.alike for plan in found.plans)
