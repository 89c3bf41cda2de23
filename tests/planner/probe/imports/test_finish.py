"""What imported topologies go through at their end."""

from __future__ import annotations

import pytest

from planner.probe.imports.finish import finish, identify_as, is_switched, symmetric
from profiles.topology import NodeDevice, NodeTopology


def node_of(count, cell, **fields):
    matrix = tuple(tuple("X" if a == b else cell for b in range(count)) for a in range(count))
    return NodeTopology(devices=tuple(NodeDevice(index=i) for i in range(count)), matrix=matrix, **fields)


@pytest.mark.parametrize(
    ("count", "cell", "switched"),
    [
        (8, "NV18", True),
        (16, "NV6", True),
        (4, "NV18", True),
        (4, "NV4", False),  # 12 links of 12 ports
        (4, "NV6", False),  # 18 of 18
        (2, "NV18", False),
        (2, "NV12", False),
        (8, "XGMI", False),
        (8, "SYS", False),
    ],
)
def test_switches_show_by_more_links_than_ports(count, cell, switched):
    assert is_switched(node_of(count, cell)) is switched


def test_weaker_direction_counts():
    assert symmetric((("X", "NV4"), ("NV2", "X"))) == (("X", "NV2"), ("NV2", "X"))
    assert symmetric((("X", "PIX"), ("SYS", "X"))) == (("X", "SYS"), ("SYS", "X"))
    assert symmetric((("X", "NV4"), ("?", "X"))) == (("X", "?"), ("?", "X"))


@pytest.mark.parametrize(
    ("device", "count", "links"),
    [
        ("a100-sxm4-80gb", 8, "assumed"),
        ("h200-sxm-141gb", 8, "assumed"),
        ("a100-pcie-80gb", 8, "unknown"),
        ("a100-sxm4-80gb", 4, "unknown"),  # boards of four have no switches
        ("rtx4090", 8, "unknown"),
    ],
)
def test_known_boards_have_their_switches_assumed(device, count, links):
    node = identify_as(node_of(count, "SYS", links="unknown"), device)
    assert node.links == links
    assert node.switched is (links == "assumed")


def test_links_that_were_seen_are_left_alone():
    node = identify_as(node_of(8, "SYS"), "a100-sxm4-80gb")
    assert (node.links, node.relation(0, 1)) == ("seen", "SYS")


def test_devices_that_are_named_keep_their_names():
    node = node_of(2, "SYS")
    node = node.model_copy(
        update={"devices": (node.devices[0].model_copy(update={"name": "X1"}), node.devices[1])}
    )
    assert [device.name for device in identify_as(node, "rtx4090").devices] == ["X1", "rtx4090"]


def test_links_are_counted():
    assert [device.links for device in finish(node_of(4, "NV4")).devices] == [12] * 4
    assert [device.links for device in finish(node_of(8, "NV12", switched=True)).devices] == [12] * 8
