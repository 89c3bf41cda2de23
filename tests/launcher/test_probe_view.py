"""The matrix and the drawing of a node."""

from __future__ import annotations

from launcher.probe_view import WIDEST_MATRIX, link_rows, matrix_lines, node_lines
from profiles.presets import cluster_preset
from profiles.topology import NodeDevice, NodeNic, NodeTopology

NICS = (
    NodeNic(name="mlx5_0", kind="infiniband", bytes_per_second=50e9, numa_node=0),
    NodeNic(name="mlx5_1", kind="infiniband", bytes_per_second=50e9, numa_node=1, state="down"),
    NodeNic(name="mlx5_2", kind="infiniband", bytes_per_second=25e9, compute=False),
)


def node_of(count, cell, *, nics=(), **fields):
    size = count + len(nics)

    def relation(a, b):
        if a == b:
            return "X"
        return cell(min(a, b), max(a, b)) if max(a, b) < count else "PIX"

    devices = tuple(NodeDevice(index=i, numa_node=i % 2, link_bytes_per_second=25e9) for i in range(count))
    matrix = tuple(tuple(relation(a, b) for b in range(size)) for a in range(size))
    return NodeTopology(devices=devices, nics=tuple(nics), matrix=matrix, **fields)


def test_matrix_has_a_row_for_each_device_and_nic():
    lines = matrix_lines(node_of(2, lambda a, b: "NV12", nics=NICS))
    assert lines[0].split() == ["GPU0", "GPU1", "NIC0", "NIC1", "NIC2"]
    assert [line.split()[0] for line in lines[1:]] == lines[0].split()
    assert lines[1].split() == ["GPU0", "X", "NV12", "PIX", "PIX", "PIX"]


def test_matrix_too_wide_for_a_terminal_is_cut_and_says_so():
    many = [NodeNic(name=f"rdmap{i}", kind="efa") for i in range(32)]
    lines = matrix_lines(node_of(2, lambda a, b: "NV6", nics=many))
    assert [line.split() for line in lines[:3]] == [
        ["GPU0", "GPU1"],
        ["GPU0", "X", "NV6"],
        ["GPU1", "NV6", "X"],
    ]
    assert "without 32 NICs" in lines[3]
    assert "see --json" in matrix_lines(node_of(WIDEST_MATRIX + 1, lambda a, b: "NV6"))[0]
    assert matrix_lines(NodeTopology()) == []


def test_nics_behind_one_device_stand_in_its_line():
    """Four EFA devices sit behind the PCIe switch of each of two GPUs."""
    nics = tuple(NodeNic(name=f"rdmap{i}", kind="efa", numa_node=0) for i in range(8))
    node = node_of(2, lambda a, b: "NV6", nics=nics)
    rows = [
        [
            "PIX" if min(a, b) < 2 <= max(a, b) and (max(a, b) - 2) // 4 == min(a, b) else "NODE"
            for b in range(10)
        ]
        for a in range(10)
    ]
    lines = node_lines(node.model_copy(update={"matrix": tuple(map(tuple, rows))}))
    assert "│ GPU0    ──PIX─── rdmap0, rdmap1, rdmap2, rdmap3" in lines
    assert "│ GPU1    ──PIX─── rdmap4, rdmap5, rdmap6, rdmap7" in lines


def test_device_that_no_switch_reaches_is_left_out_of_the_joint():
    lines = node_lines(node_of(4, lambda a, b: "SYS" if b == 3 else "NV18", switched=True))
    assert any(line.startswith("GPU0–GPU3 without GPU3: 18 NVLinks") for line in lines)


def test_every_device_and_every_nic_is_drawn_once():
    text = "\n".join(node_lines(node_of(4, lambda a, b: "SYS", nics=NICS)))
    assert all(text.count(f"│ GPU{i}") == 1 for i in range(4))
    assert text.count("mlx5_1") == 1
    assert "mlx5_1 400 Gb/s DOWN" in text
    assert "mlx5_2 200 Gb/s (not for training) (NUMA unknown)" in text
    assert "┌ NUMA 0" in text
    assert "┌ NUMA 1" in text


def test_switches_direct_links_and_pairs():
    assert "GPU0–GPU7: 18 NVLinks each to 4 NVSwitches, 450 GB/s each way" in node_lines(
        node_of(8, lambda a, b: "NV18", switched=True, nvswitches=4)
    )
    assert "GPU0–GPU3: NV4 between all pairs" in node_lines(node_of(4, lambda a, b: "NV4"))
    pairs = node_lines(node_of(4, lambda a, b: "NV4" if b == a + 1 and a % 2 == 0 else "SYS"))
    assert "NV4: 0═1  2═3" in pairs


def test_complaints_are_marked():
    node = node_of(2, lambda a, b: "SYS")
    ill = node.devices[1].model_copy(update={"complaints": ("needs a reset",)})
    lines = node_lines(node.model_copy(update={"devices": (node.devices[0], ill)}))
    assert [line.endswith("!") for line in lines if line.startswith("│ GPU")] == [False, True]


def test_link_classes_show_what_one_device_gets():
    rows = link_rows(cluster_preset("selene"))
    assert [row[1] for row in rows] == ["8", "all"]
    assert rows[0][2].endswith("B/s")
