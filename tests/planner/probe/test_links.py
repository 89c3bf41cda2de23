"""Link classes: what the planner reads of a node's wiring."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.costs.communication import LINK_EFFICIENCY, path
from planner.probe.assemble import cluster_of
from planner.probe.links import link_classes, nearest_nics, network_link
from profiles.presets import cluster_preset
from profiles.topology import NodeDevice, NodeNic, NodeTopology


def node_of(count, cell, *, nics=(), near=lambda device, nic: "SYS", switched=False, rate=25e9):
    size = count + len(nics)

    def relation(a, b):
        if a == b:
            return "X"
        if max(a, b) < count:
            return cell(min(a, b), max(a, b))
        return near(min(a, b), max(a, b) - count) if min(a, b) < count else "SYS"

    return NodeTopology(
        devices=tuple(NodeDevice(index=i, link_bytes_per_second=rate) for i in range(count)),
        nics=tuple(nics),
        matrix=tuple(tuple(relation(a, b) for b in range(size)) for a in range(size)),
        switched=switched,
    )


def shape(node):
    return [(link.kind, link.span, link.bytes_per_second) for link in link_classes(node)[:-1]]


def test_switches_make_one_class():
    assert shape(node_of(8, lambda a, b: "NV18", switched=True)) == [("nvswitch", 8, 450e9)]


def test_all_pairs_joined_directly_grow_with_the_run():
    """Four boards with four links each way: a pair has 4 links, four devices use 12 each."""
    assert shape(node_of(4, lambda a, b: "NV4")) == [("nvlink", 2, 100e9), ("nvlink", 4, 300e9)]


def test_pairs_end_in_pcie():
    node = node_of(8, lambda a, b: "NV4" if b == a + 1 and a % 2 == 0 else "SYS")
    assert shape(node) == [("nvlink", 2, 100e9), ("pcie", 8, 31.5e9)]


def test_ring_of_links_serves_rings_of_all():
    node = node_of(4, lambda a, b: "NV2" if (b - a) in {1, 3} else "SYS")
    assert shape(node) == [("nvlink", 2, 50e9), ("nvlink", 4, 100e9)]


def test_weakest_pair_sets_the_pace():
    node = node_of(4, lambda a, b: {(0, 1): "NV4", (2, 3): "NV3"}.get((a, b), "SYS"))
    assert shape(node)[0] == ("nvlink", 2, 75e9)


def test_six_devices_have_runs_of_two_and_three():
    node = node_of(6, lambda a, b: "PIX" if a // 3 == b // 3 else "SYS")
    assert shape(node) == [("pcie", 6, 31.5e9)]


@pytest.mark.parametrize(("ports", "shared_by"), [(8, 1), (4, 2), (1, 8), (16, 0.5)])
def test_ports_are_shared(ports, shared_by):
    nics = [NodeNic(name=f"n{i}", kind="infiniband", bytes_per_second=50e9) for i in range(ports)]
    link = network_link(node_of(8, lambda a, b: "SYS", nics=nics), devices=8)
    assert (link.kind, link.span, link.bytes_per_second, link.shared_by) == (
        "infiniband",
        None,
        50e9,
        shared_by,
    )
    assert link.device_bytes_per_second == 50e9 * ports / 8


def test_ports_that_are_down_or_for_storage_do_not_count():
    nics = [
        NodeNic(name="a", kind="roce", bytes_per_second=50e9),
        NodeNic(name="b", kind="roce", bytes_per_second=50e9, state="down"),
        NodeNic(name="c", kind="roce", bytes_per_second=25e9, compute=False),
    ]
    link = network_link(node_of(2, lambda a, b: "SYS", nics=nics), devices=2)
    assert (link.kind, link.bytes_per_second, link.shared_by) == ("roce", 50e9, 2)


def test_without_nic_the_network_is_assumed_and_says_so():
    link = network_link(node_of(8, lambda a, b: "SYS"), devices=8)
    assert (link.kind, link.source.split(":")[0]) == ("ethernet", "assumed")


def test_nearest_nics_are_spread():
    """Two NICs equally near to four devices serve two each."""
    nics = [NodeNic(name="a"), NodeNic(name="b")]
    node = node_of(4, lambda a, b: "PHB", nics=nics, near=lambda device, nic: "PHB")
    assert [near[0] for near in nearest_nics(node)] == [0, 1, 0, 1]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_wiring_gives_a_valid_cluster(data):
    """Spans ascend and end with the whole, and the cluster grows to any number of nodes."""
    count = data.draw(st.integers(1, 8))
    cells = {
        pair: data.draw(st.sampled_from(["NV1", "NV2", "XGMI", "C2C", "PIX", "PHB", "SYS", "?"]))
        for pair in combinations(range(count), 2)
    }
    cluster = cluster_of(node_of(count, lambda a, b: cells[a, b]))
    spans = [link.span for link in cluster.links]
    assert spans[-1] is None
    assert spans[:-1] == sorted(spans[:-1])
    assert count == 1 or spans[-2] == count
    assert cluster.with_nodes(4).devices == 4 * count


def test_planner_prices_each_run_of_a_mesh_by_its_own_links():
    """Four boards with four links each way: a pair rings at 100 GB/s, all four at 300."""
    cluster = cluster_of(node_of(4, lambda a, b: "NV4"))
    nominal = LINK_EFFICIENCY["nvlink"]
    assert path(cluster, 2, 1).bytes_per_second == pytest.approx(100e9 * nominal)
    assert path(cluster, 4, 1).bytes_per_second == pytest.approx(300e9 * nominal)
    preset = cluster_preset("dgx1-v100")
    assert path(preset, 8, 1).bytes_per_second == pytest.approx(150e9 * nominal)


def test_planner_prices_pairs_that_pcie_joins():
    node = node_of(4, lambda a, b: "NV4" if b == a + 1 and a % 2 == 0 else "SYS")
    cluster = cluster_of(node)
    assert path(cluster, 2, 1).bytes_per_second == pytest.approx(100e9 * LINK_EFFICIENCY["nvlink"])
    assert path(cluster, 4, 1).bytes_per_second == pytest.approx(2 * 31.5e9 * LINK_EFFICIENCY["pcie"])
