"""Boxes people train on, each to the right cluster.yaml and sentence, under the unmodified NVML binding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.probe import probe
from planner.probe.nvml import LiveNvml
from planner.probe.sentence import describe_node
from profiles.documents import dump_yaml, parse_yaml, plain
from profiles.presets import resolve_cluster


def seen(box):
    cluster = probe(sources=box.sources())
    return cluster, cluster.topology.node


def links_of(cluster):
    return [(link.kind, link.span, link.bytes_per_second, link.shared_by) for link in cluster.links]


def problems_of(node):
    return {problem.name for problem in node.problems}


def test_hgx_h100(boxes):
    cluster, node = seen(boxes.hgx_h100())
    assert describe_node(node) == (
        "8 × H100, all-to-all NVLink through 4 NVSwitches, one 400 Gb/s NIC per GPU: tp up to 8 inside a node"
    )
    assert links_of(cluster) == [("nvswitch", 8, 450e9, 1), ("infiniband", None, 50e9, 1)]
    assert cluster.device.name == "h100-sxm5-80gb"
    assert cluster.device.memory_bytes == 85520809984
    assert cluster.device.sources["memory_bytes"] == "NVML"
    assert cluster.device.sources["flops_per_second"].startswith("preset h100-sxm5-80gb")
    assert node.numa_nodes == 2
    assert [device.numa_node for device in node.devices] == [0] * 4 + [1] * 4
    assert all(
        node.relation(i, 8 + j) == ("PIX" if i == j else "NODE" if i // 4 == j // 4 else "SYS")
        for i in range(8)
        for j in range(8)
    )
    assert not node.problems
    assert node.driver == "550.54.15"


def test_dgx_a100_leaves_storage_ports_out(boxes):
    cluster, node = seen(boxes.dgx_a100())
    assert describe_node(node) == (
        "8 × A100, all-to-all NVLink through 6 NVSwitches, one 200 Gb/s NIC per GPU: tp up to 8 inside a node"
    )
    assert links_of(cluster) == [("nvswitch", 8, 300e9, 1), ("infiniband", None, 25e9, 1)]
    assert [nic.compute for nic in node.nics] == [True] * 8 + [False] * 2


def test_dgx1_cube_mesh(boxes):
    cluster, node = seen(boxes.dgx1())
    assert describe_node(node) == (
        "8 × V100, NVLink hybrid cube mesh (6 links per device), one 100 Gb/s NIC for 2 GPUs:"
        " tp up to 8 inside a node over rings (4 where all are joined)"
    )
    # A pair has one link at its weakest, a device of a quad four links to the others, of the node all six.
    assert links_of(cluster) == [
        ("nvlink", 2, 25e9, 1),
        ("nvlink", 4, 100e9, 1),
        ("nvlink", 8, 150e9, 1),
        ("infiniband", None, 12.5e9, 2),
    ]
    assert node.relation(0, 5) == "SYS"
    assert not node.switched


def test_nvl72_node_knows_its_domain(boxes):
    cluster, node = seen(boxes.nvl72())
    assert describe_node(node) == (
        "4 × GB200, all-to-all NVLink through NVSwitch in a domain that reaches beyond the node,"
        " one 400 Gb/s NIC per GPU: tp up to 4 inside a node, further inside the NVLink domain"
    )
    assert links_of(cluster)[0] == ("nvswitch", 4, 900e9, 1)
    assert {device.fabric for device in node.devices} == {"a1b2c3d4e5f60718293a4b5c6d7e8f90/32766"}
    assert node.nvswitches is None
    assert [device.host_links for device in node.devices] == [10] * 4
    assert not any(device.complaints for device in node.devices)


def test_zero_uuid_is_a_domain_of_the_node_alone(boxes):
    box = boxes.hgx_h100()
    for i in range(8):
        box.overrides[f"nvmlDeviceGetGpuFabricInfoV gpu{i}"] = f"{'0' * 32} 0 3 1aa"
    _, node = seen(box)
    assert {device.fabric for device in node.devices} == {None}


def test_pcie_only(boxes):
    cluster, node = seen(boxes.rtx4090())
    assert describe_node(node).startswith(
        "8 × RTX 4090, PCIe only (no NVLink seen), one 25 Gb/s NIC for 8 GPUs:"
    )
    assert links_of(cluster) == [("pcie", 8, pytest.approx(31.5e9, rel=0.01), 1), ("roce", None, 3.125e9, 8)]
    assert cluster.device.name == "rtx4090"
    assert node.relation(0, 1) == "NODE"
    assert node.relation(0, 4) == "SYS"


def test_nvlink_pairs(boxes):
    cluster, node = seen(boxes.pairs((0, 1), (2, 3)))
    assert "NVLink pairs (12 links), PCIe between them" in describe_node(node)
    assert "tp up to 2 inside a node" in describe_node(node)
    assert [link[:3] for link in links_of(cluster)[:2]] == [
        ("nvlink", 2, 300e9),
        ("pcie", 4, pytest.approx(31.5e9, rel=0.01)),
    ]
    assert node.device_order is None


def test_pairs_that_are_no_neighbours_get_an_order(boxes):
    cluster, node = seen(boxes.pairs((0, 2), (1, 3)))
    assert node.device_order == (0, 2, 1, 3)
    assert links_of(cluster)[0][:3] == ("nvlink", 2, 300e9)
    assert any("CUDA_VISIBLE_DEVICES=0,2,1,3" in note for note in cluster.notes)


def test_mig_slices_are_devices_without_links(boxes):
    cluster, node = seen(boxes.mig())
    assert describe_node(node).startswith("6 MIG slices (6 × 2g.20gb) of 2 × A100, no links between slices")
    assert "tp 1" in describe_node(node)
    assert cluster.devices_per_node == 6
    assert cluster.device.memory_bytes == 20 << 30
    # 28 of 108 multiprocessors.
    assert cluster.device.flops_per_second["bf16"] == pytest.approx(312e12 * 28 / 108)
    assert node.relation(0, 1) == "MIG"
    assert all(link.kind != "nvlink" for link in cluster.links)


def test_mig_without_slices_is_named(boxes):
    box = boxes.mig()
    box.overrides |= {f"nvmlDeviceGetUUID gpu{i}/{part}": None for i in range(2) for part in range(3)}
    cluster, node = seen(box)
    assert problems_of(node) == {"mig-without-slices"}
    assert cluster.device.vendor == "cpu"


def test_dead_link_is_named_and_sets_the_pace(boxes):
    box = boxes.hgx_h100()
    box.overrides["nvmlDeviceGetFieldValues gpu3 165 7"] = "0"
    cluster, node = seen(box)
    assert problems_of(node) == {"dead-link"}
    assert any("GPU3 has 17 of 18 NVLinks up (down: 7)" in note for note in cluster.notes)
    assert links_of(cluster)[0] == ("nvswitch", 8, 17 * 25e9, 1)
    assert node.relation(3, 0) == "NV17"
    assert node.relation(0, 1) == "NV18"


def test_dead_link_of_a_bridge_is_named(boxes):
    box = boxes.pairs((0, 1), (2, 3))
    for gpu in (2, 3):
        box.overrides[f"nvmlDeviceGetNvLinkState gpu{gpu} 11"] = "0"
    _, node = seen(box)
    assert [problem.message for problem in node.problems] == [
        "GPU2 has 11 of 12 NVLinks up (down: 11)",
        "GPU3 has 11 of 12 NVLinks up (down: 11)",
    ]


def test_board_without_bridge_is_healthy(boxes):
    _, node = seen(boxes.pairs())
    assert not node.problems
    assert "PCIe only" in describe_node(node)


def test_link_state_without_peer_access_is_no_path(boxes):
    box = boxes.pairs((0, 1), (2, 3))
    box.overrides |= {"nvmlDeviceGetP2PStatus gpu0 gpu1 2": "5", "nvmlDeviceGetP2PStatus gpu1 gpu0 2": "5"}
    _, node = seen(box)
    assert node.relation(0, 1) == "NODE"
    assert node.relation(2, 3) == "NV12"
    assert problems_of(node) == {"nvlink-denied"}


@pytest.mark.parametrize("name", ["hgx_h100", "dgx1"])
def test_peer_access_that_is_switched_off_is_no_missing_fabric(boxes, name):
    box = getattr(boxes, name)()
    box.overrides = {
        f"nvmlDeviceGetP2PStatus gpu{a} gpu{b} 2": "4" for a in range(8) for b in range(8) if a != b
    }
    cluster, node = seen(box)
    assert problems_of(node) == {"p2p-disabled"}
    assert "PCIe only (NVLinks are up, but the driver does not let them be used)" in cluster.summary


@pytest.mark.parametrize("dark", [(3,), (0, 1, 2, 3)])
def test_device_without_any_link_on_a_board_is_named(boxes, dark):
    box = boxes.hgx_h100()
    box.overrides = {f"nvmlDeviceGetFieldValues gpu{i} 165 {link}": "0" for i in dark for link in range(18)}
    cluster, node = seen(box)
    assert [problem.message for problem in node.problems] == [f"GPU{i} has 0 of 18 NVLinks up" for i in dark]
    assert "but not between all pairs" in cluster.summary
    assert cluster.summary.endswith("more with some of them left out")
    assert cluster.links[0].kind == "pcie"


def test_half_of_all_links_down(boxes):
    box = boxes.hgx_h100()
    box.overrides = {
        f"nvmlDeviceGetFieldValues gpu{i} 165 {link}": "0" for i in range(8) for link in range(9)
    }
    cluster, node = seen(box)
    assert links_of(cluster)[0] == ("nvswitch", 8, 9 * 25e9, 1)
    assert node.problems[0].message == "GPU0 has 9 of 18 NVLinks up (down: 0-8)"
    assert len(node.problems) == 8


@pytest.mark.parametrize("state", [1, 2])
def test_fabric_manager_is_named(boxes, state):
    box = boxes.hgx_h100()
    for i in range(8):
        box.overrides[f"nvmlDeviceGetGpuFabricInfoV gpu{i}"] = f"{'0' * 32} 0 {state} 0"
    box.overrides |= {
        f"nvmlDeviceGetP2PStatus gpu{a} gpu{b} 2": "5" for a in range(8) for b in range(8) if a != b
    }
    cluster, node = seen(box)
    assert problems_of(node) == {"fabric-manager"}
    assert any("802" in note and "nvidia-fabricmanager" in note for note in cluster.notes)
    assert cluster.links[0].kind == "pcie"


def test_hidden_far_ends_are_taken_for_switches(boxes):
    """Virtual machines do not show what NVLinks lead to; NCCL assumes NVSwitch, and so does the probe."""
    box = boxes.hgx_h100()
    for i in range(8):
        for link in range(18):
            box.overrides[f"nvmlDeviceGetNvLinkRemoteDeviceType gpu{i} {link}"] = "255"
            box.overrides[f"nvmlDeviceGetNvLinkRemotePciInfo gpu{i} {link}"] = " 0x0"
    _, node = seen(box)
    assert node.relation(0, 7) == "NV18"
    assert node.switched
    assert any("virtual machine" in note for note in node.notes)


@pytest.mark.parametrize(
    ("code", "name"), [(9, "driver-not-loaded"), (18, "driver-version-mismatch"), (4, "no-permission")]
)
def test_driver_that_does_not_start_is_named(boxes, code, name):
    box = boxes.hgx_h100()
    box.overrides["nvmlInit"] = f"!{code}"
    cluster, node = seen(box)
    assert problems_of(node) == {name}
    assert cluster.device.vendor == "cpu"
    assert any("8 NVIDIA device(s) on the PCI bus" in note and "→" in note for note in cluster.notes)
    assert cluster.summary.startswith("no usable accelerator (")


def test_lost_device_is_named_and_left_out(boxes):
    box = boxes.hgx_h100()
    box.overrides["nvmlDeviceGetName gpu3"] = "!15"
    cluster, node = seen(box)
    assert problems_of(node) == {"device-lost"}
    assert cluster.devices_per_node == 7
    assert any("GPU3 does not answer" in note for note in cluster.notes)


def test_lost_device_whose_name_is_remembered(boxes):
    box = boxes.hgx_h100()
    box.overrides = {
        k: "!15" for k in box.profile() if " gpu3" in k and not k.startswith("nvmlDeviceGetName")
    }
    cluster, node = seen(box)
    assert problems_of(node) == {"device-lost"}
    assert cluster.devices_per_node == 7


@pytest.mark.parametrize("count", ["!999", "0"])
def test_devices_that_the_driver_does_not_show(boxes, count):
    box = boxes.hgx_h100()
    box.overrides["nvmlDeviceGetCount"] = count
    cluster, node = seen(box)
    assert problems_of(node) == {"devices-hidden"}
    assert "8 NVIDIA device(s) are on the PCI bus" in cluster.summary


def test_virtual_devices_are_told(boxes):
    """A vGPU answers no question about NVLink."""
    box = boxes.pairs()
    box.name = "GRID A100D-20C"
    box.overrides = {key: "!3" for key in box.profile() if "NvLink" in key}
    box.overrides |= {f"nvmlDeviceGetVirtualizationMode gpu{i}": "2" for i in range(4)}
    cluster, node = seen(box)
    assert cluster.summary.startswith("4 × A100D (vGPU), PCIe only")
    assert any("virtual GPUs" in note for note in cluster.notes)
    assert not node.problems


def test_one_device_in_slices_does_not_hide_the_whole_ones(boxes):
    box = boxes.mig()
    box.overrides["nvmlDeviceGetMigMode gpu0"] = "0 0"
    assert seen(box)[0].summary.startswith("1 × A100 and 3 MIG slices (3 × 2g.20gb) of 1 × A100, ")


def test_devices_that_tell_no_name_are_known_by_their_pci_id(boxes):
    box = boxes.hgx_h100()
    box.overrides = {f"nvmlDeviceGetName gpu{i}": "!13" for i in range(8)}
    assert seen(box)[0].device.name == "h100-sxm5-80gb"


def test_driver_that_hangs_is_named(boxes):
    box = boxes.hgx_h100()
    box.overrides["nvmlInit"] = "!hang"
    cluster = probe(sources=replace(box.sources(), nvml=LiveNvml(limit_seconds=0.1)))
    assert problems_of(cluster.topology.node) == {"driver-hangs"}
    assert cluster.device.vendor == "cpu"


def test_device_that_hangs_leaves_those_before_it(boxes):
    box = boxes.pairs((0, 1), (2, 3))
    box.overrides["nvmlDeviceGetName gpu2"] = "!hang"
    cluster = probe(sources=replace(box.sources(), nvml=LiveNvml(limit_seconds=2.0)))
    assert cluster.devices_per_node == 2
    assert [problem.name for problem in cluster.topology.node.problems] == ["device-lost"] * 2


def test_complaints_of_a_device(boxes):
    box = boxes.hgx_h100()
    box.overrides |= {
        "nvmlDeviceGetTotalEccErrors gpu2 1 0": "3",
        "nvmlDeviceGetRemappedRows gpu2": "0 1 1 0",
        "nvmlDeviceGetCurrentClocksEventReasons gpu4": "0x40",
        "nvmlDeviceGetFieldValues gpu5 230 0": "2",
        "nvmlDeviceGetCurrPcieLinkWidth gpu6": "8",
        "nvmlDeviceGetGpuFabricInfoV gpu7": f"{'0' * 32} 0 3 1a9",
    }
    _, node = seen(box)
    told = {device.index: " ".join(device.complaints) for device in node.devices if device.complaints}
    assert set(told) == {2, 4, 5, 6, 7}
    assert "3 uncorrected" in told[2]
    assert "wait to be remapped" in told[2]
    assert "heat" in told[4]
    assert "reboot of the node" in told[5]
    assert "8 of 16 lanes" in told[6]
    assert "degraded bandwidth" in told[7]


def test_power_cap_is_a_note(boxes):
    box = boxes.hgx_h100()
    box.overrides |= {f"nvmlDeviceGetEnforcedPowerLimit gpu{i}": "500000" for i in range(8)}
    cluster, _ = seen(box)
    assert cluster.device.power_watts == 500
    assert any("500 W of 700 W" in note for note in cluster.notes)


def test_power_cap_of_one_device_slows_all(boxes):
    box = boxes.hgx_h100()
    box.overrides["nvmlDeviceGetEnforcedPowerLimit gpu2"] = "400000"
    cluster, _ = seen(box)
    assert cluster.device.power_watts == 400
    assert any("power of GPU2 is limited to 400 W of 700 W" in note for note in cluster.notes)


def test_unlike_devices_plan_with_the_smallest(boxes):
    box = boxes.dgx_a100()
    box.overrides |= {
        "nvmlDeviceGetName gpu5": "NVIDIA A100-SXM4-40GB",
        "nvmlDeviceGetMemoryInfo gpu5": str(40 << 30),
    }
    cluster, _ = seen(box)
    assert cluster.device.name == "a100-sxm4-40gb"
    assert any("the devices differ" in note for note in cluster.notes)


def test_device_without_preset_gets_rates_from_its_clocks(boxes):
    """The RTX 3080 Ti's data sheet: 68 TFLOP/s at 16 bits, 34.1 at fp32, 912 GB/s."""
    box = boxes.rtx4090()
    box.name, box.capability, box.cores, box.clock = "NVIDIA GeForce RTX 3080 Ti", "8 6", 10240, 1665
    box.memory_clock, box.pci_id = 9501, "0x220810de"
    cluster, _ = seen(box)
    assert cluster.device.flops_per_second["bf16"] == pytest.approx(68.2e12, rel=0.01)
    assert cluster.device.flops_per_second["fp32"] == pytest.approx(34.1e12, rel=0.01)
    assert cluster.device.memory_bytes_per_second == pytest.approx(912e9, rel=0.01)
    assert cluster.device.sources["flops_per_second"].startswith("derived")


@pytest.mark.parametrize("name", ["hgx_h100", "dgx_a100", "dgx1", "nvl72", "rtx4090", "mig"])
def test_cluster_yaml_reads_back_equal(boxes, name):
    cluster, _ = seen(getattr(boxes, name)())
    assert resolve_cluster(parse_yaml(dump_yaml(plain(cluster))).data, None) == cluster
