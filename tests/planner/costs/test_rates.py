"""Phases of a stage: waiting for the host, and for other stages."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.communication import all_gather_seconds, all_reduce_seconds, path
from planner.costs.price import assess
from planner.costs.rates import analytic_pieces, gathering_seconds, reduction_seconds, stage_phases
from planner.costs.software import MATERIALISED, MODERN
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

LAYOUT = Layout(tp=8, pp=4, dp=1, microbatch=1, global_batch=8)


def forward_seconds(gpt: ModelSpec, selene: ClusterSpec, blend: float, host: float) -> float:
    pieces = analytic_pieces(gpt, selene, LAYOUT, replace(MATERIALISED, host_factor=host))
    phases = stage_phases(replace(pieces, blend=blend), 12, first=False, last=False, recompute="none")
    return float(phases.forward_seconds)


@given(blend=st.floats(1.0, 9.0), host=st.floats(0.5, 60.0))
def test_a_phase_is_as_long_as_the_slower_of_device_and_host_and_no_longer_than_both(
    blend: float, host: float, gpt: ModelSpec, selene: ClusterSpec
) -> None:
    device = forward_seconds(gpt, selene, 1.0, 1e-9)
    both = forward_seconds(gpt, selene, 1.0, host)
    seconds = forward_seconds(gpt, selene, blend, host)
    assert max(device, both - device) * (1 - 1e-6) <= seconds <= both * (1 + 1e-6)


def test_kernels_started_one_by_one_add_the_host_to_the_device(gpt: ModelSpec, selene: ClusterSpec) -> None:
    ahead = analytic_pieces(gpt, selene, LAYOUT, MATERIALISED)
    blocking = analytic_pieces(gpt, selene, LAYOUT, replace(MATERIALISED, synchronous=True))
    slow, quick = (
        stage_phases(pieces, 12, first=False, last=False, recompute="full") for pieces in (blocking, ahead)
    )
    block = ahead.block
    assert float(slow.forward_seconds) == pytest.approx(
        float(12 * (block.forward + block.host_forward) + slow.tp_forward)
    )
    assert slow.backward_seconds > quick.backward_seconds


def test_ranks_that_join_in_collectives_wait_for_more_hosts_than_a_rank_alone(
    gpt: ModelSpec, selene: ClusterSpec
) -> None:
    alone = analytic_pieces(gpt, selene, LAYOUT.model_copy(update={"tp": 1}), MATERIALISED)
    group = analytic_pieces(gpt, selene, LAYOUT, MATERIALISED)
    assert float(group.blend) < float(alone.blend)


def test_a_transfer_is_started_on_both_sides(gpt: ModelSpec, selene: ClusterSpec) -> None:
    def hop(layout: Layout, seconds: float) -> float:
        software = replace(MATERIALISED, hop_seconds=seconds)
        return float(analytic_pieces(gpt, selene, layout, software).hop_seconds)

    assert hop(LAYOUT, 1e-3) - hop(LAYOUT, 0.0) == pytest.approx(1e-3)
    assert hop(LAYOUT.model_copy(update={"pp": 1}), 1e-3) == 0


def dp_seconds(zero: int, cluster: ClusterSpec, *, broadcasts: bool = False) -> tuple[float, float]:
    """Return the seconds of summing 10¹⁰ gradients over 64 ranks, and of handing out the weights."""
    layout = LAYOUT.model_copy(update={"tp": 1, "pp": 1, "dp": 64, "global_batch": 64, "zero": zero})
    software = replace(MODERN, reduce_bytes=2, broadcasts=broadcasts)
    summed = reduction_seconds(cluster, layout, software, 1e10, None)
    return float(summed), float(gathering_seconds(cluster, layout, software, 1e10, None))


def test_a_sharded_optimizer_moves_as_much_as_an_all_reduce(selene: ClusterSpec) -> None:
    """Scatter and gather are the two halves of an all-reduce (Rajbhandari et al. 2020, arXiv 1910.02054)."""
    whole, nothing = dp_seconds(0, selene)
    scattered, gathered = dp_seconds(1, selene)
    assert nothing == 0
    assert scattered + gathered == pytest.approx(whole, rel=0.02)
    assert dp_seconds(2, selene) == (0.0, gathered)  # gradients are scattered in every microbatch
    assert dp_seconds(3, selene) == (0.0, 0.0)


def test_weights_that_are_broadcast_travel_round_the_group_once_for_every_rank(selene: ClusterSpec) -> None:
    route = path(selene, 64, 1)
    summed, handed = dp_seconds(1, selene, broadcasts=True)
    assert summed == pytest.approx(float(all_reduce_seconds(route, 2e10)))
    assert handed == pytest.approx(float(all_gather_seconds(route, 2e10, 64)))
    latency = float(all_gather_seconds(route, 2e10, 2) - all_gather_seconds(route, 2e10))
    assert handed - dp_seconds(1, selene)[1] == pytest.approx(63 * latency)


def test_a_backward_hides_the_sum_of_gradients_but_not_the_weights_that_follow(
    gpt: ModelSpec, selene: ClusterSpec
) -> None:
    layout = LAYOUT.model_copy(
        update={"pp": 1, "dp": 8, "global_batch": 64, "zero": 1, "sequence_parallel": True}
    )
    assessment = assess(gpt, selene, layout, software=MODERN)
    held = assessment.parameters[0]
    summed = float(reduction_seconds(selene, layout, MODERN, held, None))
    handed = float(gathering_seconds(selene, layout, MODERN, held, None))
    exposed = assessment.estimate.time.dp_comm
    assert handed < exposed < handed + summed
