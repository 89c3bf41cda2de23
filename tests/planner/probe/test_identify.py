"""From the names that drivers give to presets."""

from __future__ import annotations

import pytest

from planner.probe.identify import kind_of_nic, link_rate, name_of_pci_id, preset_for, short_name
from profiles.presets import device_preset, preset_names
from profiles.topology import NodeDevice


@pytest.fixture(scope="module")
def shelf():
    return [(name, device_preset(name).memory_bytes) for name in preset_names("devices")]


@pytest.mark.parametrize(
    ("name", "memory", "preset"),
    [
        ("NVIDIA H100 80GB HBM3", 85520809984, "h100-sxm5-80gb"),
        ("NVIDIA H100 PCIe", 85520809984, "h100-pcie-80gb"),
        ("NVIDIA H100 NVL", 100485038080, None),
        ("NVIDIA H200", 150754820096, "h200-sxm-141gb"),
        ("NVIDIA A100-SXM4-80GB", 85899345920, "a100-sxm4-80gb"),
        ("NVIDIA A100-SXM4-40GB", 42949672960, "a100-sxm4-40gb"),
        ("A100-SXM-80GB", 85899345920, "a100-sxm4-80gb"),
        ("NVIDIA A100 80GB PCIe", 85899345920, "a100-pcie-80gb"),
        ("NVIDIA A100-PCIE-40GB", 42949672960, None),
        ("Tesla V100-SXM2-16GB", 16945512448, "v100-sxm2-16gb"),
        ("Tesla V100-SXM2-32GB", 34359738368, "v100-sxm2-32gb"),
        ("NVIDIA B200", 192265846784, "b200"),
        ("NVIDIA GB200", 198674743296, "gb200"),
        ("NVIDIA B300 SXM6 AC", 288400343040, "b300"),
        ("NVIDIA GB300", 298013687808, "gb300"),
        ("NVIDIA GH200 480GB", 102625181696, "gh200"),
        ("NVIDIA GH200 480GB", None, "gh200"),
        ("NVIDIA A800-SXM4-80GB", 85899345920, "a800-sxm4-80gb"),
        ("AMD Instinct MI250X", 68702699520, "mi250x"),
        ("NVIDIA L40S", 48305799168, "l40s"),
        ("NVIDIA GeForce RTX 4090", 25757220864, "rtx4090"),
        ("AMD Instinct MI300X OAM", 206141652992, "mi300x"),
        ("NVIDIA GeForce RTX 3090", 25438126080, "rtx3090"),
        ("NVIDIA GeForce RTX 3080", 10737418240, None),
        ("NVIDIA GeForce RTX 2080 Ti", 11811160064, "rtx2080-ti-11gb"),
        ("NVIDIA GeForce RTX 2080", 8589934592, None),
        ("NVIDIA TITAN RTX", 25396510720, "titanrtx"),
        ("NVIDIA RTX A6000", 51527024640, "rtxa6000"),
        ("Tesla T4", 15843721216, "t4"),
        ("NVIDIA A10", 24146608128, "a10"),
        ("NVIDIA A10G", 24146608128, "a10g"),
        ("NVIDIA A40", 48305799168, "a40"),
        ("NVIDIA L4", 24152899584, "l4"),
        ("NVIDIA L40", 48305799168, "l40"),
        ("NVIDIA H800", 85520809984, "h800-sxm5-80gb"),
        ("NVIDIA H20", 102625181696, "h20-sxm-96gb"),
        ("Tesla P100-SXM2-16GB", 17070817280, "p100-sxm2-16gb"),
        ("Tesla P100-PCIE-16GB", 17070817280, None),
        ("AMD Instinct MI325X", 274861129728, "mi325x"),
        ("AMD Instinct MI355X", 309220868096, "mi355x"),
        ("NVIDIA Something Else", 85899345920, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_names_of_drivers(shelf, name, memory, preset):
    assert preset_for(NodeDevice(index=0, name=name, memory_bytes=memory), shelf) == preset


def test_memory_in_the_name_stands_in(shelf):
    """A file that names the product but not its memory."""
    assert preset_for(NodeDevice(index=0, name="Tesla V100-SXM2-32GB"), shelf) == "v100-sxm2-32gb"


def test_slice_belongs_to_the_preset_of_the_whole(shelf):
    device = NodeDevice(
        index=0, name="NVIDIA A100-SXM4-80GB MIG 1g.10gb", memory_bytes=10 << 30, slice="1g.10gb"
    )
    assert preset_for(device, shelf) == "a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA A100-SXM4-80GB MIG 2g.20gb", "A100"),
        ("Quadro", "Quadro"),
        (None, "GPU"),
    ],
)
def test_short_names(name, short):
    assert short_name(name) == short


def test_pci_ids():
    assert name_of_pci_id("10DE:2330") == "NVIDIA H100 80GB HBM3"
    assert name_of_pci_id("10de:ffff") is None
    assert name_of_pci_id(None) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mlx5_0", "unknown"),
        ("mlx5_ib3", "infiniband"),
        ("ibp24s0", "infiniband"),
        ("mlx5_bond_0", "roce"),
        ("bnxt_re1", "roce"),
        ("rdmap79s0", "efa"),
        ("mlx5_an0", "ethernet"),
        ("enp5s0f0", "ethernet"),
        ("", "unknown"),
    ],
)
def test_kinds_of_nics_by_name(name, kind):
    assert kind_of_nic(name) == kind


def test_rates_of_links_by_product():
    """One link in one direction; the data sheets give both directions of all links of a device."""
    assert 2 * 18 * link_rate("NVIDIA H100 80GB HBM3") == 900e9
    assert 2 * 18 * link_rate("NVIDIA B200") == 1800e9
    assert 2 * 4 * link_rate("NVIDIA RTX A6000") == 112.5e9
    assert 2 * 7 * link_rate("AMD Instinct MI300X", amd=True) == 896e9
    assert 2 * 7 * link_rate("mi355x", amd=True) == pytest.approx(1075e9, rel=1e-3)
    assert 2 * 8 * link_rate("AMD Instinct MI250X", amd=True) == 800e9
