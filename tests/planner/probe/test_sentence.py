"""Sentences about nodes and clusters."""

from __future__ import annotations

import pytest

from planner.probe.sentence import describe_cluster, describe_node, is_railed, largest_fast_span
from profiles.presets import cluster_preset
from profiles.topology import NodeDevice, NodeNic, NodeTopology


def node_of(count, cell, *, nics=0, near=lambda device, nic: "NODE", rate=50e9, kind="infiniband", **fields):
    size = count + nics

    def relation(a, b):
        if a == b:
            return "X"
        low, high = min(a, b), max(a, b)
        return cell(low, high) if high < count else near(low, high - count) if low < count else "SYS"

    return NodeTopology(
        devices=tuple(NodeDevice(index=i, name="NVIDIA H100 80GB HBM3") for i in range(count)),
        nics=tuple(NodeNic(name=f"n{i}", kind=kind, bytes_per_second=rate) for i in range(nics)),
        matrix=tuple(tuple(relation(a, b) for b in range(size)) for a in range(size)),
        **fields,
    )


@pytest.mark.parametrize(
    ("devices", "nics", "told"),
    [
        (8, 8, "one 400 Gb/s NIC per GPU"),
        (8, 4, "one 400 Gb/s NIC for 2 GPUs"),
        (8, 1, "one 400 Gb/s NIC for 8 GPUs"),
        (4, 8, "two 400 Gb/s NICs per GPU"),
        (8, 6, "six 400 Gb/s NICs for 8 GPUs"),
        (8, 0, "no NIC seen"),
    ],
)
def test_nics(devices, nics, told):
    assert told in describe_node(node_of(devices, lambda a, b: "SYS", nics=nics))


def test_kinds_of_nics():
    assert "one 400 Gb/s EFA NIC per GPU" in describe_node(node_of(2, lambda a, b: "SYS", nics=2, kind="efa"))
    assert "one Ethernet NIC per GPU" in describe_node(
        node_of(2, lambda a, b: "SYS", nics=2, kind="ethernet", rate=None)
    )


def test_advice_reaches_as_far_as_the_links():
    assert "tp up to 4 inside a node" in describe_node(node_of(4, lambda a, b: "NV6"))
    assert "tp up to 2 inside a node; beyond" in describe_node(
        node_of(4, lambda a, b: "NV6" if b == a + 1 and a % 2 == 0 else "SYS")
    )
    assert "tp at most 2 of 4" in describe_node(node_of(4, lambda a, b: "PIX"))
    assert describe_node(node_of(1, lambda a, b: "X")).endswith("tp 1")


def test_span_of_three_is_no_run_of_four():
    """Three devices joined and one alone: no run of two or four is joined throughout."""
    assert largest_fast_span(node_of(4, lambda a, b: "NV4" if b < 3 else "SYS")) == 1


def test_unlike_devices_are_counted_by_kind():
    node = node_of(2, lambda a, b: "NV4")
    other = node.devices[1].model_copy(update={"name": "NVIDIA A100-SXM4-80GB"})
    node = node.model_copy(update={"devices": (node.devices[0], other)})
    assert describe_node(node).startswith("1 × H100 and 1 × A100, ")


def test_rails_need_a_nic_of_its_own_next_to_each_device():
    own = node_of(4, lambda a, b: "NV4", nics=4, near=lambda d, n: "PIX" if d == n else "NODE")
    assert is_railed(own)
    shared = node_of(4, lambda a, b: "NV4", nics=4, near=lambda d, n: "PIX" if d // 2 == n // 2 else "NODE")
    assert is_railed(shared)  # two NICs behind each switch: each device takes one
    assert not is_railed(
        node_of(4, lambda a, b: "NV4", nics=2, near=lambda d, n: "PIX" if d // 2 == n else "NODE")
    )
    crossed = node_of(2, lambda a, b: "NV4", nics=2, near=lambda d, n: "PIX" if d != n else "NODE")
    assert not is_railed(crossed)


def test_nothing_there():
    assert describe_node(NodeTopology()) == "no accelerator was found"


def test_clusters_without_topology():
    assert describe_cluster(cluster_preset("dgx-h100")) == (
        "32 nodes, each 8 × h100-sxm5-80gb, links from the inside out: nvlink4, ndr"
    )
