"""Phases of a stage: waiting for the host, and for other stages."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.rates import analytic_pieces, stage_phases
from planner.costs.software import MATERIALISED
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
