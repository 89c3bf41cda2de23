"""hwloc's XML."""

from __future__ import annotations

import pytest

from planner.probe.assemble import cluster_of
from planner.probe.imports.hwloc import read_hwloc
from planner.probe.imports.xml import parse_xml
from planner.probe.sentence import describe_node
from profiles.errors import ConfigError


def read(text):
    return read_hwloc(parse_xml(text, name="dump"), name="dump")


def test_pair_with_bridge(samples):
    node = read(samples["hwloc"])
    assert (
        describe_node(node)
        == "2 × A100, all-to-all NVLink (12 links), one NIC for 2 GPUs: tp up to 2 inside a node"
    )
    assert (node.host, node.system, node.numa_nodes, node.cores) == ("server-a", "Some Server", 2, 2)
    assert node.memory_bytes == 2 * 68719476736
    assert [device.numa_node for device in node.devices] == [0, 0]
    assert node.devices[0].pcie_bytes_per_second == pytest.approx(31.5e9, rel=0.01)
    # The board's display chip is no device; the NIC's network interface is no second NIC.
    assert [(nic.name, nic.kind, nic.state) for nic in node.nics] == [("mlx5_0", "infiniband", "active")]
    assert node.relation(0, 2) == "PHB"


def test_links_to_a_switch_join_all(samples):
    """hwloc counts links towards a switch as one peer object."""
    text = samples["hwloc"].replace(">30 31 <", ">30 31 99 <")
    text = text.replace(
        "1000000 300000 300000 1000000", "1000000 0 300000 0 1000000 300000 300000 300000 1000000"
    )
    node = read(text)
    assert node.switched
    assert node.relation(0, 1) == "NV12"


def test_xgmi_bandwidth(samples):
    """Two links of 50 GB/s join the dies of an MI250X next to each other."""
    text = samples["hwloc"].replace("NVLinkBandwidth", "XGMIBandwidth").replace("10de:20b5", "1002:7408")
    node = read(text.replace("300000", "100000").replace("NVIDIA A100 80GB PCIe", "AMD INSTINCT MI250X"))
    assert node.relation(0, 1) == "XGMI2"
    assert [(device.vendor, device.links) for device in node.devices] == [("amd", 2)] * 2
    assert cluster_of(node).links[0].bytes_per_second == 2 * 50e9


def test_hops_of_one_are_links(samples):
    text = samples["hwloc"].replace("NVLinkBandwidth", "XGMIHops").replace("300000", "1")
    assert read(text).relation(0, 1) == "XGMI"


def test_two_hops_are_no_link_of_their_own(samples):
    node = read(samples["hwloc"].replace("NVLinkBandwidth", "XGMIHops").replace("300000", "2"))
    assert node.relation(0, 1) == "HOP2"
    assert cluster_of(node).links[0].kind == "xgmi"


def test_switches_that_are_devices_are_counted(samples):
    """Two NVSwitches that the tree shows; each device has six links to each."""
    table = " ".join(
        str(v) for v in (9, 0, 150000, 150000, 0, 9, 150000, 150000, *[150000, 150000, 0, 0] * 2)
    )
    text = samples["hwloc"].replace(">30 31 <", ">OSDev:30 OSDev:31 PCIDev:98 PCIDev:99 <")
    node = read(text.replace("1000000 300000 300000 1000000", table))
    assert (node.nvswitches, node.relation(0, 1)) == (2, "NV12")


def test_memory_of_a_superchips_gpu_is_no_numa_node_of_the_host(samples):
    of_gpu = '<object type="NUMANode" os_index="2" subtype="GPUMemory" gp_index="90" local_memory="99"/>'
    node = read(
        samples["hwloc"].replace(
            '<object type="Core" os_index="1"', of_gpu + '<object type="Core" os_index="1"'
        )
    )
    assert (node.numa_nodes, node.memory_bytes) == (2, 2 * 68719476736)


def test_no_matrix_of_links_says_none_only_where_the_vendors_library_was_asked(samples):
    without = samples["hwloc"].replace("NVLinkBandwidth", "SomethingElse")
    assert "PCIe only (no NVLink seen)" in describe_node(read(without))
    assert "NVLink not in this file" in describe_node(read(without.replace("nvml", "cuda")))


def test_matrix_that_does_not_fit_is_left_out(samples):
    node = read(samples["hwloc"].replace("1000000 300000 300000 1000000", "1000000 300000"))
    assert node.relation(0, 1) == "PHB"


def test_integrated_device_is_known_by_the_product(samples):
    text = samples["hwloc"].replace("0302 [", "0c03 [").replace("Some Server", "NVIDIA_DGX_Spark")
    node = read(text)
    assert [device.name for device in node.devices] == ["NVIDIA GB10"]
    assert "assumed" in node.origins["devices"]


def test_no_device_is_refused(samples):
    with pytest.raises(ConfigError, match="no accelerator"):
        read(samples["hwloc"].replace("0302 [", "0c03 ["))
