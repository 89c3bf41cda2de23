"""Fits against times made from known latencies and rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.bench_compare import compare_with
from planner.link_fits import fit_links
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.costs import Collective, CollectiveCost, CostTable
from profiles.model import ModelSpec

SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26)


def table(times: dict[int, float], *, operation: Collective = "all_reduce", ranks: int = 4) -> CostTable:
    return CostTable(
        machine="here",
        device="a device",
        model=ModelSpec(layers=1, hidden=8, heads=1, vocab=8, seq_len=8),
        concurrent_ranks=ranks,
        matmul_flops_per_second=71e12,
        collectives=tuple(
            CollectiveCost(
                operation=operation,
                ranks=ranks,
                message_bytes=size,
                seconds=seconds,
                spread_seconds=0.0,
                samples=3,
            )
            for size, seconds in times.items()
        ),
    )


@given(st.floats(1e-6, 1e-3), st.floats(1e8, 1e12))
def test_known_latency_and_rate_are_found(latency: float, rate: float) -> None:
    (fit,) = fit_links(table({size: latency + size / rate for size in SIZES}))
    assert fit.latency_seconds == pytest.approx(latency, rel=1e-6)
    assert fit.bytes_per_second == pytest.approx(rate, rel=1e-3)
    assert fit.residual < 1e-6
    assert fit.seconds(1 << 20) == pytest.approx(latency + (1 << 20) / rate, rel=1e-3)


def test_what_is_not_a_line_shows_in_the_residual() -> None:
    times = {size: 1e-5 + size / 1e9 for size in SIZES}
    times[SIZES[2]] *= 2
    (fit,) = fit_links(table(times))
    assert 0.1 < fit.residual < fit.worst < 1


def test_neither_part_is_negative() -> None:
    (concave,) = fit_links(table({1 << 10: 1e-9, 1 << 20: 1e-3, 1 << 21: 4e-3}))
    assert concave.latency_seconds >= 0
    (falling,) = fit_links(table({1 << 10: 2e-3, 1 << 20: 1e-3}))
    assert falling.bytes_per_second > 0
    assert falling.latency_seconds > 0


def test_one_size_is_no_line() -> None:
    assert fit_links(table({1024: 1e-5})) == ()


def test_rates_are_compared_with_the_cluster() -> None:
    device = DeviceSpec(
        name="a device",
        memory_bytes=1 << 30,
        memory_bytes_per_second=1e12,
        flops_per_second={"fp32": 100e12},
    )
    links = (
        LinkSpec(name="inner", kind="nvlink", span=4, bytes_per_second=3e9, latency_seconds=1e-6),
        LinkSpec(name="outer", kind="infiniband", bytes_per_second=1e9, latency_seconds=1e-6, shared_by=2),
    )
    cluster = ClusterSpec(device=device, devices_per_node=4, nodes=2, links=links)
    costs = table({size: size / 1e9 for size in SIZES})
    matmul, reduce = compare_with(costs, cluster)
    assert matmul.ratio == pytest.approx(0.71)
    assert "71%" in matmul.sentence()
    # A ring of four sends 2 · 3/4 of the message over each link.
    assert reduce.measured_per_second == pytest.approx(1.5e9)
    assert reduce.ratio == pytest.approx(0.5)
    assert "inner" in reduce.sentence()
    wide = compare_with(table({size: size / 1e9 for size in SIZES}, ranks=8), cluster)[1]
    assert "outer" in wide.sentence()
    # A ring over two nodes leaves each by the ports of all its four devices, two ports of 1 GB/s.
    assert wide.expected_per_second == pytest.approx(2e9)
