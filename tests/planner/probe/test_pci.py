"""Distances in the PCI tree."""

from __future__ import annotations

import pytest

from planner.probe.files import LiveFiles
from planner.probe.pci import (
    distance,
    farther,
    generation_of,
    is_display,
    is_nvswitch,
    link_bytes_per_second,
    list_devices,
    normal_bus_id,
    pci_path,
    read_device,
)

PORT = "pci0000:10/0000:10:01.0"
SWITCH = f"{PORT}/0000:11:00.0"


def path(text):
    return pci_path(f"/sys/devices/{text}")


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        (
            f"{SWITCH}/0000:12:00.0/0000:13:00.0",
            f"{SWITCH}/0000:12:01.0/0000:14:00.0",
            "PIX",
        ),  # ports of a switch
        (f"{PORT}/0000:11:00.0", f"{PORT}/0000:11:00.1", "PIX"),  # two functions of a card
        (  # a switch behind a switch
            f"{SWITCH}/0000:12:00.0/0000:13:00.0/0000:14:00.0/0000:15:00.0",
            f"{SWITCH}/0000:12:01.0/0000:16:00.0",
            "PXB",
        ),
        (f"{PORT}/0000:11:00.0", "pci0000:10/0000:10:02.0/0000:12:00.0", "PHB"),
    ],
)
def test_devices_below_one_root_complex(first, second, relation):
    assert distance(path(first), path(second)) == relation
    assert distance(path(second), path(first)) == relation


@pytest.mark.parametrize(
    ("numa", "nodes", "relation"),
    [
        ((0, 0), 2, "NODE"),
        ((0, 1), 2, "SYS"),
        ((None, 1), 2, "SYS"),
        ((None, None), 1, "NODE"),
        ((None, 0), None, "SYS"),
    ],
)
def test_devices_below_two_root_complexes(numa, nodes, relation):
    first, second = path(f"{PORT}/0000:11:00.0"), path("pci0000:80/0000:80:01.0/0000:81:00.0")
    assert distance(first, second, numa=numa, numa_nodes=nodes) == relation


def test_without_a_path_nothing_is_known():
    assert distance((), path(f"{PORT}/0000:11:00.0")) == "?"


def test_domains_beyond_0000_are_kept():
    """Cloud machines give every GPU a domain of its own."""
    assert pci_path("/sys/devices/pci0001:00/0001:00:00.0") == ("pci0001:00", "0001:00:00.0")
    assert normal_bus_id("00000001:00:00.0") == "0001:00:00.0"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("3B:00.0", "0000:3b:00.0"),
        ("00010000:3b:00.0", "10000:3b:00.0"),
        ("", None),
        (None, None),
        ("gpu0", None),
        ("0000:3b:00", None),
    ],
)
def test_bus_ids(text, normal):
    assert normal_bus_id(text) == normal


def test_devices_of_a_tree(tree):
    tree.pci(f"{PORT}/0000:11:00.0", vendor="10de", device="2330", kind="030200", numa=1, cpus="8-15")
    tree.pci(f"{PORT}/0000:11:01.0", vendor="10de", device="22a3", kind="068000", numa=1)
    tree.pci(f"{PORT}/0000:11:02.0", vendor="8086", device="1234", kind="060400", numa=-1)
    files = LiveFiles(root=tree.root)
    gpu, switch = list_devices(files)
    assert (is_display(gpu), is_nvswitch(gpu), gpu.numa_node, gpu.cpus) == (True, False, 1, "8-15")
    assert (is_display(switch), is_nvswitch(switch)) == (False, True)
    assert read_device(files, "0000:11:02.0").numa_node is None
    assert read_device(files, "0000:99:00.0") is None


def test_rates_of_links():
    """PCIe 4.0 x16 and 5.0 x16 carry 31.5 and 63 GB/s in each direction."""
    assert link_bytes_per_second(generation_of("16.0 GT/s PCIe"), 16) == pytest.approx(31.5e9, rel=0.01)
    assert link_bytes_per_second(generation_of("32 GT/s"), 16) == pytest.approx(63e9, rel=0.01)
    assert link_bytes_per_second(generation_of("Unknown"), 16) is None
    assert link_bytes_per_second(4, 0) is None


def test_the_farther_of_two():
    assert farther("PIX", "SYS") == "SYS"
    assert farther("?", "PHB") == "PHB"
