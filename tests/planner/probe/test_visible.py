"""CUDA_VISIBLE_DEVICES, by the CUDA runtime's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.probe import probe
from planner.probe.snapshot import record_probe, replay
from planner.probe.visible import visible_text


def seen(box, text):
    return probe(sources=replace(box.sources(), variables={"CUDA_VISIBLE_DEVICES": text}))


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("0,1", [0, 1]),
        ("3,2", [3, 2]),
        ("1,9,2", [1]),  # the list ends at the first entry that names no device
        ("0,-1,1", [0]),
        ("GPU-00000000-0000-0000-0000-000000000002", [2]),
        ("0,1,2,3", [0, 1, 2, 3]),
    ],
)
def test_devices_that_remain(boxes, text, devices):
    node = seen(boxes.pairs((0, 1), (2, 3)), text).topology.node
    assert [int(device.uuid[-2:]) for device in node.devices] == devices
    assert [device.index for device in node.devices] == list(range(len(devices)))
    assert len(node.matrix) == len(devices) + len(node.nics)


def test_links_follow_the_devices(boxes):
    box = boxes.pairs((0, 1), (2, 3))
    assert seen(box, "2,3").topology.node.relation(0, 1) == "NV12"
    apart = seen(box, "0,2")
    assert apart.topology.node.relation(0, 1) == "SYS"
    assert apart.links[0].kind == "pcie"
    assert any("shows 2 of 4 devices" in note for note in apart.notes)


@pytest.mark.parametrize("text", ["", "NoDevFiles", "-1", "GPU-0000"])
def test_variable_that_hides_all_is_told(boxes, text):
    """`GPU-0000` begins the UUID of every device, and so names none."""
    cluster = seen(boxes.pairs((0, 1), (2, 3)), text)
    assert cluster.devices_per_node == 4
    assert any("hides all 4 devices" in note for note in cluster.notes)


def test_snapshot_keeps_the_variable(boxes):
    sources = replace(boxes.pairs((0, 1)).sources(), variables={"CUDA_VISIBLE_DEVICES": "1"})
    cluster, snapshot = record_probe(sources=sources)
    assert cluster.devices_per_node == 1
    assert replay(snapshot) == cluster


def test_other_variables_are_not_kept():
    assert visible_text({"CUDA_VISIBLE_DEVICES": "0", "TOKEN": "secret"}) == {"CUDA_VISIBLE_DEVICES": "0"}
