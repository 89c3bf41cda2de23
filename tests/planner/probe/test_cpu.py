"""A machine without accelerators as a cluster of rank slots."""

from __future__ import annotations

import pytest

from planner.probe.cpu import cpu_cluster
from planner.probe.files import LiveFiles
from planner.probe.host import read_host


@pytest.fixture
def host(tree):
    tree.host(numa_nodes=1, cpus=8)
    return read_host(LiveFiles(root=tree.root))


def test_one_slot_a_core_by_default(host):
    cluster = cpu_cluster(host)
    assert (cluster.devices_per_node, cluster.nodes, cluster.cores_per_node) == (8, 1, 8)
    assert cluster.device.vendor == "cpu"
    assert cluster.device.memory_bytes == host.memory_bytes // 8
    assert [link.kind for link in cluster.links] == ["shared_memory"]


@pytest.mark.parametrize(("ranks", "cores"), [(1, 8), (2, 4), (3, 2), (8, 1), (16, 1)])
def test_a_slot_has_its_cores_and_its_share_of_memory(host, ranks, cores):
    """A rank alone runs at the rate of the cores it has to itself; the planner prices sharing itself."""
    cluster = cpu_cluster(host, ranks=ranks)
    core = cpu_cluster(host, ranks=8).device.flops_per_second["fp32"]
    assert cluster.device.flops_per_second["fp32"] == cores * core
    assert cluster.device.memory_bytes == host.memory_bytes // ranks
    assert cluster.cores_per_node == 8


def test_oversubscription_is_said(host):
    assert cpu_cluster(host, ranks=8).notes == ()
    assert any("16 ranks share 8 core" in note for note in cpu_cluster(host, ranks=16).notes)


def test_every_number_tells_its_origin(host):
    cluster = cpu_cluster(host, ranks=4)
    numbers = {
        "memory_bytes",
        "memory_bytes_per_second",
        "flops_per_second",
        "launch_seconds",
        "context_bytes",
    }
    assert numbers <= set(cluster.device.sources)
    assert "assumed" in cluster.device.sources["flops_per_second"]
    assert "/proc/meminfo" in cluster.device.sources["memory_bytes"]
    assert cluster.origins["devices_per_node"] == "asked for"
    assert "assumed" in cluster.links[0].source


def test_nothing_known_is_all_assumed(tree):
    cluster = cpu_cluster(read_host(LiveFiles(root=tree.root)))
    assert cluster.devices == 1
    assert cluster.device.sources["memory_bytes"] == "assumed"
