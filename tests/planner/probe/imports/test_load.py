"""`--import` of files of every kind: published dumps, spoilt ones, and what is none."""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.probe.assemble import cluster_of
from planner.probe.imports.load import ImportedText, read_import, read_topology
from planner.probe.sentence import describe_node
from profiles.errors import ConfigError

DUMPS = {
    "azure-ndv2-v100-nccl-topo.xml": (8, 2, 1),
    "azure-ndv4-a100-nccl-topo.xml": (8, 4, 8),
    "azure-ncv4-a100pcie-nccl-topo.xml": (4, 4, 1),
    "aws-p4de-a100-80gb-nccl-topo.xml": (8, 2, 4),
    "oci-a100-flattened-nccl-topo.xml": (8, 4, 8),
    "power8-p100-nvlink-hwloc.xml": (4, 2, 0),
    "dgx-spark-gb10-hwloc.xml": (1, 1, 0),
    "2x-consumer-nv2-smi.txt": (2, None, 0),
    "8x-v100-16gb-hybrid-cube-mesh-smi.txt": (8, 2, 1),
    "8x-v100-32gb-2nic-cube-mesh-smi.txt": (8, 2, 2),
    "8x-rtx4090-pcie-smi.txt": (8, 2, 2),
    "aws-p4d-24xl-smi.txt": (8, 2, 0),
    "2x-nv3-partially-seated-bridge-smi.txt": (2, None, 0),
    "8x-mi355x-rocm-smi-showtopo.txt": (8, None, 0),
}
# Devices, NUMA nodes and NICs that the file itself shows; the index adds what its page told besides.


@pytest.mark.parametrize("name", DUMPS)
def test_published_dump_reads_as_its_index_says(published, name):
    node = read_topology(read_import(published / name))
    assert (len(node.devices), node.numa_nodes, len(node.nics)) == DUMPS[name]
    index = yaml.safe_load((published / "INDEX.yaml").read_text())["dumps"]
    expected = next(entry["expected"] for entry in index if entry["file"] == name)
    assert len(node.devices) == expected["gpus"]
    if "nvlink_links_per_gpu" in expected:
        assert {device.links for device in node.devices} == {expected["nvlink_links_per_gpu"]}
    if expected.get("nvswitch") == "no" and node.links == "seen":
        assert not node.switched
    if str(expected.get("nvswitch", "")).startswith("yes (implied"):
        assert node.switched
    if expected.get("nvlink_in_file") in {"no", "self-loops only"}:
        assert node.links in {"unknown", "assumed"}
        assert any("NVLink is not in this file" in note for note in node.notes)
    cluster_of(node)


def test_index_has_no_dump_that_is_not_tested(published):
    index = yaml.safe_load((published / "INDEX.yaml").read_text())["dumps"]
    assert {entry["file"] for entry in index} == set(DUMPS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("aws-p4d-24xl-smi.txt", "all-to-all NVLink through NVSwitch"),
        ("8x-v100-16gb-hybrid-cube-mesh-smi.txt", "hybrid cube mesh (6 links per device)"),
        ("8x-v100-32gb-2nic-cube-mesh-smi.txt", "hybrid cube mesh (6 links per device)"),
        ("8x-rtx4090-pcie-smi.txt", "PCIe only"),
        ("power8-p100-nvlink-hwloc.xml", "4 × P100, NVLink pairs (2 links)"),
        ("8x-mi355x-rocm-smi-showtopo.txt", "all-to-all xGMI"),
        ("2x-consumer-nv2-smi.txt", "all-to-all NVLink (2 links)"),
        ("dgx-spark-gb10-hwloc.xml", "1 × GB10"),
    ],
)
def test_published_dump_is_told_in_a_sentence(published, name, sentence):
    assert sentence in describe_node(read_topology(read_import(published / name)))


def test_badly_seated_bridge_is_accepted_and_reported(published):
    node = read_topology(read_import(published / "2x-nv3-partially-seated-bridge-smi.txt"))
    assert node.relation(0, 1) == "NV3"
    assert [problem.name for problem in node.problems] == ["dead-link"]


def test_azure_ndv4_gives_every_device_a_nic_next_to_it(published):
    node = read_topology(read_import(published / "azure-ndv4-a100-nccl-topo.xml"))
    assert all("PIX" in node.matrix[device][8:] for device in range(8))
    # Bus ids 0001 and 0002 are on NUMA node 1, 0003 and 0004 on node 0: not the file's order.
    assert [device.numa_node for device in node.devices] == [1, 1, 0, 0, 3, 3, 2, 2]


def read_whatever(text):
    """What every text must do: give a node that can be planned with, or one message."""
    try:
        node = read_topology(ImportedText(name="dump", text=text))
        cluster_of(node)
        describe_node(node)
    except ConfigError as error:
        assert str(error).startswith("dump")
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["smi", "nccl", "rocm", "hwloc"])
def test_truncated_files_give_a_message(samples, kind):
    text = samples[kind]
    for end in range(0, len(text), 19):
        read_whatever(text[:end])


@pytest.mark.parametrize("kind", ["smi", "nccl", "rocm", "hwloc"])
def test_spoilt_files_give_a_message(samples, kind):
    text = samples[kind]

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def check(data):
        spoilt = text
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(spoilt)))
            cut = data.draw(st.integers(0, 30))
            filler = data.draw(
                st.one_of(
                    st.text(max_size=8),
                    st.sampled_from(
                        ["-1", "99999999999999999999", "0x", "NV0", "NV99", "\t", "\n", "nan", '"', "<a>"]
                    ),
                )
            )
            spoilt = spoilt[:at] + filler + spoilt[at + cut :]
        read_whatever(spoilt)

    check()


@pytest.mark.parametrize("kind", ["nccl", "hwloc"])
def test_spoilt_attributes_give_a_message(samples, kind):
    """Attributes changed one by one keep the XML well-formed, so that the readers behind it are reached."""
    pieces = samples[kind].split('"')
    values = ["", "-1", "0", "99999999999999999999999", "0x", "ff", "x" * 300, "nan", "0000:02:00.0", "é"]
    chance = random.Random(0)
    for place in range(1, len(pieces), 2):
        for value in chance.sample(values, 1):
            read_whatever('"'.join([*pieces[:place], value, *pieces[place + 1 :]]))


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
@example(text="GPU0 GPU1\nGPU0 X NV1")
@example(text="<system/>")
@example(text="<topology/>")
@example(text="= Link Type between two GPUs =\nGPU0 GPU1\nGPU0 0")
def test_any_text_gives_a_message(text):
    read_whatever(text)


@pytest.mark.slow
def test_published_dumps_truncated_anywhere(published):
    for name in DUMPS:
        text = (published / name).read_text()
        for end in range(0, len(text), max(1, len(text) // 10)):
            read_whatever(text[:end])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x7fELF\0\0\0", "binary file"),
        (b"hello\n", "not recognised"),
        (b"<html></html>", "root <html>"),
    ],
)
def test_what_is_no_topology_is_refused(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_topology(read_import(path))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_import(tmp_path / "absent")
    with pytest.raises(ConfigError, match="directory"):
        read_import(tmp_path)


def test_windows_text_is_read(samples, tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text(samples["smi"].replace("\n", "\r\n"), encoding="utf-16")
    assert len(read_topology(read_import(path)).devices) == 4
