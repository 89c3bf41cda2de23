"""Collectives against nccl-tests and against each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.communication import all_gather_seconds, all_reduce_seconds, path, send_seconds
from profiles.cluster import ClusterSpec
from profiles.presets import cluster_preset

SELENE = cluster_preset("selene")


def test_an_all_reduce_inside_a_node_takes_what_nccl_tests_measured() -> None:
    """1 GiB over 8 A100: 8.19 ms (bus bandwidth 229 GB/s)."""
    seconds = all_reduce_seconds(path(SELENE, 8, 1), 2**30)
    assert float(seconds) == pytest.approx(8.19e-3, rel=0.05)


def test_ranks_of_one_group_share_the_ports_of_their_node() -> None:
    alone = path(SELENE, 4, 8)  # one rank in each of four nodes
    four = path(SELENE, 16, 2)  # four ranks in each of four nodes
    assert float(four.bytes_per_second) == pytest.approx(4 * float(alone.bytes_per_second))
    assert float(alone.inner_ranks) == 1
    assert float(four.inner_ranks) == 4


def test_groups_share_a_port_that_serves_several_devices() -> None:
    shared = cluster_preset("jean-zay-a100")
    assert float(path(shared, 4, 8).bytes_per_second) == pytest.approx(0.92 * 12.5e9 / 2)


@given(
    degree=st.sampled_from([2, 4, 8, 16, 64]),
    stride=st.sampled_from([1, 2, 8]),
    size=st.floats(1e3, 1e10),
    factor=st.floats(1.0, 10.0),
)
def test_more_bandwidth_is_never_slower(degree: int, stride: int, size: float, factor: float) -> None:
    faster = SELENE.model_copy(
        update={
            "links": tuple(
                link.model_copy(update={"bytes_per_second": link.bytes_per_second * factor})
                for link in SELENE.links
            )
        }
    )
    for price in (all_reduce_seconds, all_gather_seconds, send_seconds):
        assert price(path(faster, degree, stride), size) <= price(path(SELENE, degree, stride), size)


@given(size=st.floats(1e3, 1e9))
def test_an_all_reduce_costs_at_least_its_gather(size: float) -> None:
    route = path(SELENE, 16, 1)
    assert all_reduce_seconds(route, size) >= all_gather_seconds(route, size) * 0.99


def test_one_rank_communicates_for_nothing(selene: ClusterSpec) -> None:
    route = path(selene, 1, 1)
    assert float(all_reduce_seconds(route, 1e9)) == 0
    assert float(all_gather_seconds(route, 1e9)) == 0
    assert float(send_seconds(route, 1e9)) == 0


def test_columns_have_the_times_of_single_groups() -> None:
    degrees, strides = np.array([1, 2, 8, 16]), np.array([1, 8, 1, 4])
    together = all_reduce_seconds(path(SELENE, degrees, strides), 1e8)
    single = [
        float(all_reduce_seconds(path(SELENE, d, s), 1e8)) for d, s in zip(degrees, strides, strict=True)
    ]
    assert together == pytest.approx(single)
