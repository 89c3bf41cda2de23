"""Tables of `rocm-smi --showtopo`."""

from __future__ import annotations

import json

import pytest

from planner.probe.assemble import cluster_of
from planner.probe.imports.rocm import looks_like_rocm, read_rocm
from planner.probe.sentence import describe_node
from profiles.errors import ConfigError


def test_all_to_all_xgmi(write):
    text = write.rocm([["XGMI"] * 8] * 8, numa=[0] * 4 + [1] * 4)
    assert looks_like_rocm(text)
    node = read_rocm(text, name="dump")
    assert describe_node(node).startswith("8 × GPU, all-to-all xGMI, no NIC seen: tp up to 8 inside a node")
    assert node.numa_nodes == 2
    assert {device.vendor for device in node.devices} == {"amd"}
    link = cluster_of(node, device="mi300x").links
    assert [(c.kind, c.span, c.bytes_per_second) for c in link[:3]] == [
        ("xgmi", 2, 64e9),
        ("xgmi", 4, 3 * 64e9),
        ("xgmi", 8, 7 * 64e9),
    ]


def test_ring_of_dies_is_told_by_weight(write):
    """Older tools tell one hop for every pair that xGMI joins; the weight counts 15 for each."""
    text = write.rocm([["XGMI"] * 8] * 8, weight=lambda a, b: 15 * min((a - b) % 8, (b - a) % 8))
    node = read_rocm(text, name="dump")
    assert node.matrix[0] == ("X", "XGMI", "HOP2", "HOP3", "HOP4", "HOP3", "HOP2", "XGMI")
    assert "8 × GPU, xGMI in up to 4 hops (2 links per device)" in describe_node(node)
    cluster = cluster_of(node)
    assert cluster.device.name == "mi250x"
    # Neighbours share a link, and so do four in a row; the ring of all uses both links of each.
    assert [(c.kind, c.span, c.bytes_per_second) for c in cluster.links[:2]] == [
        ("xgmi", 4, 50e9),
        ("xgmi", 8, 100e9),
    ]


def test_hops_that_are_told_count(write):
    node = read_rocm(write.rocm([["XGMI"] * 2] * 2, hops="2"), name="dump")
    assert node.relation(0, 1) == "HOP2"


def test_pcie_only_by_numa(write):
    node = read_rocm(write.rocm([["PCIE"] * 4] * 4, numa=[0, 0, 1, 1], hops="3"), name="dump")
    assert node.relation(0, 1) == "NODE"
    assert node.relation(0, 2) == "SYS"
    assert "PCIe only" in describe_node(node)


def test_table_of_numa_nodes_may_be_missing(write):
    text = write.rocm([["XGMI"] * 2] * 2).split("= Numa Nodes =")[0]
    node = read_rocm(text, name="dump")
    assert node.numa_nodes is None
    assert any("NUMA" in note for note in node.notes)


def test_rows_that_are_cut_off_are_taken_from_their_mirror_image(write):
    text = write.rocm([["XGMI"] * 4] * 4)
    start = text.index("Link Type")
    node = read_rocm(text[: text.index("GPU3   XGMI", start) + 30], name="dump")
    assert all(node.relation(3, i) == "XGMI" for i in range(3))


def test_without_link_types_it_is_refused(write):
    text = write.rocm([["XGMI"] * 2] * 2)
    with pytest.raises(ConfigError, match="Link Type"):
        read_rocm(text[: text.index("Link Type")], name="dump")


def test_two_hives(write):
    """Two groups of four boards with bridges; PCIe between the groups."""
    cells = [["XGMI" if a // 4 == b // 4 else "PCIE" for b in range(8)] for a in range(8)]
    node = read_rocm(write.rocm(cells, numa=[0] * 4 + [1] * 4), name="dump")
    assert "xGMI fours (3 links), PCIe between them" in describe_node(node)
    assert [(link.kind, link.span) for link in cluster_of(node).links[:3]] == [
        ("xgmi", 2),
        ("xgmi", 4),
        ("pcie", 8),
    ]


def test_older_spelling_of_numa_nodes(write):
    text = write.rocm([["XGMI"] * 2] * 2, numa=[0, 3]).replace("GPU[0]", "GPU 0").replace("GPU[1]", "GPU 1")
    assert [device.numa_node for device in read_rocm(text, name="dump").devices] == [0, 3]


def test_json():
    """Only the upper triangle of each table is given."""
    system = {
        f"(Topology) Link type between DRM devices {a} and {b}": "XGMI"
        for a in range(4)
        for b in range(a + 1, 4)
    }
    data = {"system": system, **{f"card{i}": {"(Topology) Numa Node": str(i // 2)} for i in range(4)}}
    text = json.dumps(data, indent=1)
    assert looks_like_rocm(text)
    node = read_rocm(text, name="dump")
    assert "4 × GPU, all-to-all xGMI" in describe_node(node)
    assert [device.numa_node for device in node.devices] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "text", ['"(Topology) ', '{"(Topology) x": 1}', '{"system": ["(Topology) "]}', '["(Topology) "']
)
def test_json_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="dump"):
        read_rocm(text, name="dump")
