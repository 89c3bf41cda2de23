"""AMD devices in a stand-in for the KFD topology."""

from __future__ import annotations

import pytest

from planner.probe import probe
from planner.probe.files import LiveFiles
from planner.probe.machine import Sources
from planner.probe.nvml import RecordedNvml
from planner.probe.sentence import describe_node

NODES = "/sys/class/kfd/kfd/topology/nodes"


def mi300x(tree, *, count=8, xgmi=True, compute_partition=None, path=lambda a, b: (1, 1)):
    """Two processors as KFD nodes 0 and 1, then the devices, all joined by xGMI in `path` (hops, links)."""
    tree.host(numa_nodes=2)
    for cpu in range(2):
        tree.write(f"{NODES}/{cpu}/properties", "cpu_cores_count 96\nsimd_count 0")
        tree.write(f"{NODES}/{cpu}/gpu_id", 0)
    for i in range(count):
        bus = 0x05 + 0x10 * i
        place = tree.pci(
            f"pci0000:{bus - 4:02x}/0000:{bus - 4:02x}:01.0/0000:{bus:02x}:00.0",
            vendor="1002",
            device="74a1",
            kind="120000",
            numa=i // 4,
        )
        tree.write(f"{place}/current_link_speed", "32.0 GT/s PCIe")
        tree.write(f"{place}/current_link_width", 16)
        if compute_partition:
            tree.write(f"{place}/current_compute_partition", compute_partition)
        node = f"{NODES}/{i + 2}"
        tree.write(f"{node}/gpu_id", 1000 + i)
        tree.write(
            f"{node}/properties",
            f"simd_count 1216\nsimd_per_cu 4\nvendor_id 4098\ndevice_id {0x74A1}\nlocation_id {bus << 8}\n"
            "domain 0\nmax_engine_clk_fcompute 2100\nunique_id 1234567890123456789\nhive_id 77",
        )
        tree.write(f"{node}/mem_banks/0/properties", "heap_type 1\nsize_in_bytes 206141652992")
        links = [(i // 4, 2, 1, 1)] + [(2 + j, 11, *path(i, j)) for j in range(count) if j != i and xgmi]
        for number, (to, kind, hops, joined) in enumerate(links):
            text = f"type {kind}\nnode_from {i + 2}\nnode_to {to}\nweight {15 * hops}\n"
            text += f"max_bandwidth {64000 * joined}\nmin_bandwidth 64000"
            tree.write(f"{node}/io_links/{number}/properties", text)


@pytest.fixture
def sources(tree):
    answers = {"nvmlInit()": {"reason": "LibraryNotFound"}}
    return Sources(nvml=RecordedNvml(answers=answers), files=LiveFiles(root=tree.root))


def test_eight_mi300x(tree, sources):
    mi300x(tree)
    cluster = probe(sources=sources)
    node = cluster.topology.node
    assert describe_node(node) == "8 × MI300X, all-to-all xGMI, no NIC seen: tp up to 8 inside a node"
    assert cluster.device.name == "mi300x"
    assert cluster.device.memory_bytes == 206141652992
    assert cluster.device.multiprocessors == 304
    assert [(c.kind, c.span, c.bytes_per_second) for c in cluster.links[:3]] == [
        ("xgmi", 2, 64e9),
        ("xgmi", 4, 192e9),
        ("xgmi", 8, 448e9),
    ]
    assert [device.numa_node for device in node.devices] == [0] * 4 + [1] * 4
    assert node.devices[0].bus_id == "0000:05:00.0"


def test_devices_in_hops(tree, sources):
    """Two links join 0 and 1, and 2 and 3; one joins 0 and 3, and 1 and 2; the others are two hops apart."""
    apart = {(0, 1): (1, 2), (2, 3): (1, 2), (0, 3): (1, 1), (1, 2): (1, 1)}
    mi300x(tree, count=4, path=lambda a, b: apart.get((min(a, b), max(a, b)), (2, 1)))
    cluster = probe(sources=sources)
    node = cluster.topology.node
    assert node.matrix[0] == ("X", "XGMI2", "HOP2", "XGMI")
    assert [(device.links, device.link_bytes_per_second) for device in node.devices] == [(3, 64e9)] * 4
    # A pair has two links; a ring of four goes through the one link of a pair, in both directions.
    assert [(link.span, link.bytes_per_second) for link in cluster.links[:-1]] == [(4, 2 * 64e9)]


def test_without_xgmi_it_is_pcie(tree, sources):
    mi300x(tree, count=2, xgmi=False)
    cluster = probe(sources=sources)
    assert cluster.topology.node.relation(0, 1) == "NODE"
    assert cluster.links[0].kind == "pcie"
    assert cluster.links[0].bytes_per_second == pytest.approx(63e9, rel=0.01)


def test_partition_mode_is_said(tree, sources):
    mi300x(tree, count=2, compute_partition="CPX")
    assert any("CPX" in note for note in probe(sources=sources).notes)


def test_driver_that_is_not_loaded_is_named(tree, sources):
    mi300x(tree, count=2)
    for node in (tree.root / NODES.lstrip("/")).iterdir():
        (node / "properties").unlink()
    cluster = probe(sources=sources)
    assert cluster.device.vendor == "cpu"
    assert {problem.name for problem in cluster.topology.node.problems} == {"amd-driver-not-loaded"}


def test_spoilt_properties_are_left_out(tree, sources):
    mi300x(tree, count=2)
    tree.write(f"{NODES}/3/properties", "simd_count 1216\nlocation_id garbage\ndevice_id -5\n\x00\n")
    cluster = probe(sources=sources)
    assert cluster.devices_per_node == 2
