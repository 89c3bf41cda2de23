"""NCCL topology files: dumps with NVLink, and those that clouds ship without."""

from __future__ import annotations

import pytest

from planner.costs.communication import LINK_EFFICIENCY, path
from planner.probe.assemble import cluster_of
from planner.probe.imports.finish import identify_as
from planner.probe.imports.nccl import read_nccl
from planner.probe.imports.xml import parse_xml
from planner.probe.sentence import describe_node
from profiles.errors import ConfigError


def read(text):
    return read_nccl(parse_xml(text, name="dump"), name="dump")


def hgx(write, *, switched=True):
    def board(i):
        links = (
            [(f"0000:{5 + s:02x}:00.0", n, "0x068000") for s, n in enumerate((5, 4, 4, 5))]
            if switched
            else ()
        )
        bus = 0x10 + 0x10 * i
        inside = [write.gpu(f"0000:{bus:02x}:00.0", dev=i, links=links)]
        inside.append(write.nic(f"0000:{bus + 1:02x}:00.0", f"mlx5_{i}"))
        return write.switch(f"0000:{bus - 1:02x}:00.0", *inside)

    return write.nccl(cpus=["".join(map(board, range(4))), "".join(map(board, range(4, 8)))])


def test_hgx_h100_dump(write):
    node = read(hgx(write))
    assert describe_node(node) == (
        "8 × H100, all-to-all NVLink through 4 NVSwitches, one 400 Gb/s NIC per GPU: tp up to 8 inside a node"
    )
    assert node.links == "seen"
    assert node.relation(0, 8) == "PIX"
    assert node.relation(0, 9) == "PHB"
    assert node.relation(0, 12) == "SYS"
    assert node.devices[0].cpus == "0-15"
    cluster = cluster_of(node)
    assert cluster.device.name == "h100-sxm5-80gb"
    assert (cluster.links[0].bytes_per_second, cluster.links[-1].bytes_per_second) == (450e9, 50e9)


def test_cloud_file_of_a_known_board_assumes_its_switches(write):
    node = read(hgx(write, switched=False))
    assert node.links == "assumed"
    assert "through NVSwitch (assumed for this board)" in describe_node(node)
    assert cluster_of(node).links[0].kind == "nvswitch"
    assert any("NVLink is not in this file" in note for note in node.notes)


def test_cloud_file_that_names_nothing_does_not_guess_links(write):
    bare = "".join(
        f'<pci busid="000{i}:00:00.0" class="0x030200" link_speed="16 GT/s" link_width="16"/>' for i in "1234"
    )
    node = read(write.nccl(cpus=[bare, bare.replace("000", "010")]))
    assert node.links == "unknown"
    assert "NVLink not in this file" in describe_node(node)
    assert {problem.name for problem in cluster_of(node).topology.node.problems} == {"device-unknown"}
    # With the user's word for the devices the board is known.
    named = identify_as(node, "a100-sxm4-80gb")
    assert named.links == "assumed"
    assert cluster_of(named, device="a100-sxm4-80gb").links[0].bytes_per_second == 300e9


def test_direct_links_and_links_to_the_processor(write):
    buses = ["0000:01:00.0", "0000:02:00.0"]
    gpus = [
        write.gpu(
            buses[i],
            dev=i,
            sm=60,
            device="0x15f9",
            links=[(buses[1 - i], 2, "0x030200"), ("fff", 2, "0x060400")],
        )
        for i in range(2)
    ]
    node = read(write.nccl(cpus=["".join(gpus)]))
    assert node.relation(0, 1) == "NV2"
    assert [device.host_links for device in node.devices] == [2, 2]
    assert node.devices[0].link_bytes_per_second == 20e9
    assert not node.switched


def test_links_to_itself_are_a_placeholder(write):
    gpus = [
        write.gpu(f"000{i}:00:00.0", dev=i, device="0x20b5", links=[(f"000{i}:00:00.0", 12, "0x030200")])
        for i in (0, 1)
    ]
    node = read(write.nccl(cpus=gpus))
    assert node.links == "unknown"
    assert any("placeholder" in note for note in node.notes)
    assert node.relation(0, 1) == "SYS"


def test_devices_are_numbered_by_bus_without_gpu_elements(write):
    """The file's order is that of NUMA nodes; the driver's is that of bus ids."""
    late, early = (
        '<pci busid="0009:00:00.0" class="0x030200"/>',
        '<pci busid="0001:00:00.0" class="0x030200"/>',
    )
    node = read(write.nccl(cpus=[late, early]))
    assert [device.bus_id for device in node.devices] == ["0001:00:00.0", "0009:00:00.0"]
    assert [device.numa_node for device in node.devices] == [1, 0]


def test_nested_switches_are_farther(write):
    inner = write.switch("0000:02:00.0", write.gpu("0000:03:00.0", dev=0))
    outer = write.switch("0000:01:00.0", inner, write.nic("0000:04:00.0", "mlx5_0"))
    node = read(write.nccl(cpus=[outer]))
    assert node.relation(0, 1) == "PXB"


def test_nic_without_pci_element(write):
    node = read(
        write.nccl(
            cpus=[write.gpu("0000:01:00.0", dev=0) + '<nic><net name="eth0" speed="100000" gdr="0"/></nic>']
        )
    )
    assert [(n.name, n.kind, n.bytes_per_second, n.gpu_direct) for n in node.nics] == [
        ("eth0", "ethernet", 12.5e9, False)
    ]


def test_no_gpu_is_refused(write):
    with pytest.raises(ConfigError, match="no GPU"):
        read(write.nccl(cpus=[write.nic("0000:01:00.0", "mlx5_0")]))


def test_rack_that_joins_hosts(write):
    """NVLink switches of a rack are on no host's bus; processors of several hosts differ in their hash."""
    gone = "fffffff:ff:ff.0"
    boards = [write.gpu(f"000{i}:06:00.0", dev=i, sm=103, links=[(gone, 18, "0x068000")]) for i in range(2)]
    text = write.nccl(cpus=["".join(boards), "".join(boards)])
    for number, host in enumerate(("0xa", "0xb")):
        text = text.replace(f'<cpu numaid="{number}"', f'<cpu host_hash="{host}" numaid="{number}"')
    node = read(text)
    assert (len(node.devices), node.nvswitches, node.relation(0, 1)) == (2, None, "NV18")
    assert "domain that reaches beyond the node" in describe_node(node)
    assert any("joins 2 hosts" in note for note in node.notes)


def test_gpu_without_any_link_is_named(write):
    gpus = [
        write.gpu(f"000{i}:06:00.0", dev=i, links=[("0000:05:00.0", 18, "0x068000")] * (i != 1))
        for i in range(3)
    ]
    node = read(write.nccl(cpus=["".join(gpus)]))
    assert [problem.message for problem in node.problems] == ["GPU1 has no NVLinks; others have 18"]
    assert node.relation(0, 1) == "PHB"
    assert "tp 1 on all 3" in describe_node(node)


def test_gpu_with_fewer_links_is_named(write):
    text = hgx(write).replace('count="5"', 'count="3"', 1)
    assert [problem.message for problem in read(text).problems] == ["GPU0 has 16 NVLinks; others have 18"]


def test_links_to_the_processor_of_a_superchip(write):
    chip = write.gpu("0009:01:00.0", dev=0, device="0x2342").replace(
        "></gpu>", '><c2c bw="449988" count="1"/></gpu>'
    )
    node = read(write.nccl(cpus=[chip]))
    assert node.devices[0].host_links == 1
    assert describe_node(node).startswith("1 × GH200, single device with links to the processor")


def test_dump_of_a_running_job_without_links_has_none(write):
    """NCCL writes what it found, ranks included; a file that a cloud ships has no ranks, and cannot know."""
    gpus = "".join(write.gpu(f"000{i}:01:00.0", dev=i, device="0x2684", sm=89) for i in range(2))
    assert "PCIe only (no NVLink seen)" in describe_node(read(write.nccl(cpus=[gpus])))
    shipped = gpus.replace(' rank="0"', "").replace(' rank="1"', "")
    assert "NVLink not in this file" in describe_node(read(write.nccl(cpus=[shipped])))


def test_display_chip_of_the_board_is_no_device(write):
    chip = '<pci busid="0000:03:00.0" class="0x030000" vendor="0x1a03" device="0x2000"/>'
    assert len(read(write.nccl(cpus=[write.gpu("0000:01:00.0", dev=0) + chip])).devices) == 1


def test_merged_ports_count_once(write):
    """NCCL joins the ports of a card to one device, and lists them all."""
    nic = write.nic("0000:02:00.0", "mlx5_0", speed=200000)
    second = '<net name="mlx5_1" dev="1" speed="200000"/>'
    both = '<net name="mlx5_0+mlx5_1" dev="2" speed="400000"/>'
    gpu = write.gpu("0000:01:00.0", dev=0)
    node = read(write.nccl(cpus=[gpu + nic.replace("</nic>", f"{second}{both}</nic>")]))
    assert [port.name for port in node.nics] == ["mlx5_0", "mlx5_1"]
    alone = read(write.nccl(cpus=[gpu + nic.replace('"mlx5_0"', '"mlx5_0+mlx5_1"')]))
    assert [port.name for port in alone.nics] == ["mlx5_0+mlx5_1"]


def test_dies_of_mi250x(write, mi250x):
    """Pairs of dies share four links; other dies are reached over one or two, or through another die."""

    def board(i):
        links = "".join(
            f'<xgmi target="000{sum(pair) - i}:00:00.0" count="{n}"/>'
            for pair, n in mi250x.items()
            if i in pair
        )
        gpu = f'<gpu dev="{i}" gcn="gfx90a" rank="{i}">{links}</gpu>'
        return f'<pci busid="000{i}:00:00.0" class="0x038000" vendor="0x1002" device="0x7408">{gpu}</pci>'

    node = read(write.nccl(cpus=["".join(map(board, range(8)))]))
    assert [node.relation(0, i) for i in range(1, 8)] == ["XGMI4", "XGMI", *["HOP2"] * 3, "XGMI2", "HOP2"]
    assert "8 × MI250X, xGMI in up to 2 hops (7 links per device)" in describe_node(node)
    cluster = cluster_of(node)
    rates = [(link.span, link.bytes_per_second, link.shared_by) for link in cluster.links[:-1]]
    # A pair has its four links. Two rings of four dies, one each way, go over the one link between 0 and 2.
    assert rates == [(2, 4 * 50e9, 1), (4, 2 * 50e9, 2), (8, 6 * 50e9, 1)]
    for degree, links in ((2, 4), (4, 2), (8, 6)):
        expected = links * 50e9 * LINK_EFFICIENCY["xgmi"]
        assert path(cluster, degree, 1).bytes_per_second == pytest.approx(expected)


def test_xgmi_of_rccl(write):
    def board(i):
        links = "".join(
            f'<xgmi target="000{j}:00:00.0" count="1" tclass="0x130000"/>' for j in range(4) if j != i
        )
        gpu = f'<gpu dev="{i}" sm="256" gcn="gfx942" arch="38911" rank="{i}" gdr="0">{links}</gpu>'
        return f'<pci busid="000{i}:00:00.0" class="0x130000" vendor="0x1002" device="0x74a1">{gpu}</pci>'

    node = read(write.nccl(cpus=["".join(map(board, range(4)))]))
    assert describe_node(node) == "4 × MI300X, all-to-all xGMI, no NIC seen: tp up to 4 inside a node"
    assert cluster_of(node).device.name == "mi300x"
