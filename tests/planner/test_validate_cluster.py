"""From what a record states of its cluster to a priced one."""

from __future__ import annotations

import pytest

from planner.validate_cluster import cluster_of, device_of
from profiles.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "memory_gb", "preset"),
    [
        ("A100-SXM4-80GB", 80, "a100-sxm4-80gb"),
        ("A100", 40, "a100-sxm4-40gb"),
        ("V100", 16, "v100-sxm2-16gb"),
        ("NVIDIA GeForce RTX 2080 Ti", 11, "rtx2080-ti-11gb"),
        ("NVIDIA TITAN RTX", 24, "titanrtx"),
        ("RTX 3090", 24, "rtx3090"),
        ("RTX A6000", 48, "rtxa6000"),
        ("A10G", 24, "a10g"),
        ("NVIDIA A10", 24, "a10"),
        ("Tesla T4", 16, "t4"),
        ("L40S", 48, "l40s"),
        ("L40", 48, "l40"),
        ("L4", 24, "l4"),
        ("H800 SXM", 80, "h800-sxm5-80gb"),
        ("H20", 96, "h20-sxm-96gb"),
        ("H200 SXM", 141, "h200-sxm-141gb"),
        ("GH200", 96, "gh200"),
        ("GB200", 186, "gb200"),
        ("MI355X", 288, "mi355x"),
    ],
)
def test_words_of_a_record_name_a_preset(text, memory_gb, preset):
    assert device_of(text, memory_gb, []).name == preset


@pytest.mark.parametrize("text", ["RTX A4000", "RTX 4000", "A30", "TPU v4"])
def test_a_device_without_preset_is_not_taken_for_another(text):
    with pytest.raises(ConfigError, match="no device preset"):
        device_of(text, None, [])


@pytest.mark.parametrize(
    ("gpu", "kind", "bytes_per_second"),
    [
        ("A100-SXM4-80GB", "nvswitch", 300e9),
        ("H800 SXM 80GB", "nvswitch", 200e9),
        ("A40 48GB", "pcie", 31e9),
        ("H100 PCIe 80GB", "pcie", 63e9),
        ("T4 16GB", "pcie", 15.75e9),
        ("MI300X 192GB", "xgmi", 448e9),
    ],
)
def test_links_inside_a_node_are_those_of_the_family(gpu, kind, bytes_per_second):
    link = cluster_of({"gpu": gpu, "gpus_per_node": 8}, 8, []).links[0]
    assert (link.kind, link.bytes_per_second) == (kind, bytes_per_second)


def test_stated_ports_go_before_those_of_the_family():
    stated = {"gpu": "H100 80GB", "gpus_per_node": 8, "nics_per_node": 4, "nic_gbps": 200}
    link = cluster_of(stated, 16, []).links[-1]
    assert (link.bytes_per_second, link.shared_by) == (25e9, 2)


@pytest.mark.parametrize(("gpu", "each"), [("H100 80GB", 50e9), ("A100 80GB", 12.5e9), ("T4", 12.5e9 / 8)])
def test_ports_of_the_family_are_an_assumption(gpu, each):
    assumed: list[str] = []
    link = cluster_of({"gpu": gpu, "gpus_per_node": 8}, 16, assumed).links[-1]
    assert link.bytes_per_second / link.shared_by == pytest.approx(each)
    assert any("Gb/s port" in text for text in assumed)
