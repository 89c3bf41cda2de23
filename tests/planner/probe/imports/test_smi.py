"""Tables of `nvidia-smi topo -m`, from older and newer drivers, whole and cut off."""

from __future__ import annotations

import pytest

from planner.probe.assemble import cluster_of
from planner.probe.imports.smi import looks_like_smi, read_smi
from planner.probe.sentence import describe_node
from profiles.errors import ConfigError

EIGHT = [f"GPU{i}" for i in range(8)]


def halves(name):
    return ["0-55,112-167", "0", "N/A"] if int(name[3:]) < 4 else ["56-111,168-223", "1", "N/A"]


@pytest.mark.parametrize("tabs", [True, False])
def test_nvswitch_is_recognised_by_more_links_than_ports(write, tabs):
    text = write.smi(EIGHT, lambda a, b: "NV12", {n: halves(n) for n in EIGHT}, tabs=tabs)
    node = read_smi(text, name="dump")
    assert node.switched
    assert node.nvswitches is None
    assert [device.links for device in node.devices] == [12] * 8
    assert node.numa_nodes == 2
    assert node.devices[5].cpus == "56-111,168-223"
    assert cluster_of(node).links[0].bytes_per_second == 300e9


def test_four_boards_with_bridges_to_all_have_no_switch(write):
    """Four A100 with four links to each other use all twelve ports: no switch is needed."""
    four = EIGHT[:4]
    node = read_smi(write.smi(four, lambda a, b: "NV4", {}, tabs=True), name="dump")
    assert not node.switched
    assert node.nvswitches == 0
    assert [device.links for device in node.devices] == [12] * 4


def test_cube_mesh_and_nics(write, cube_mesh):
    def cell(a, b):
        if "mlx5_0" in (a, b):
            return "PIX" if {a, b} & {"GPU2", "GPU3"} else "SYS"
        links = cube_mesh.get(tuple(sorted((int(a[3:]), int(b[3:])))))
        return f"NV{links}" if links else "SYS"

    text = write.smi([*EIGHT, "mlx5_0"], cell, {n: [halves(n)[0]] for n in EIGHT}, tabs=False)
    node = read_smi(text, name="dump")
    assert describe_node(node).startswith(
        "8 × GPU, NVLink hybrid cube mesh (6 links per device), one NIC for 8 GPUs"
    )
    assert node.numa_nodes == 2  # two sets of processors, though the table has no NUMA column
    assert node.relation(2, 8) == "PIX"


def test_legend_names_the_nics_and_colours_are_ignored(write):
    text = write.smi(["GPU0", "GPU1", "NIC0"], lambda a, b: "PHB", {}, tabs=True)
    text = text.replace("GPU1", "\x1b[4mGPU1\x1b[0m", 1) + "\nNIC Legend:\n\n  NIC0: rdmap16s27\n"
    node = read_smi(text, name="dump")
    assert [(nic.name, nic.kind) for nic in node.nics] == [("rdmap16s27", "efa")]


def test_nics_between_gpus_in_the_table(write):
    """Some tools sort columns by bus: the matrix is put in the order devices, then NICs."""
    names = ["GPU0", "mlx5_0", "GPU1"]
    pix = {"GPU0", "mlx5_0"}
    text = write.smi(names, lambda a, b: "PIX" if {a, b} == pix else "SYS", {}, tabs=True)
    node = read_smi(text, name="dump")
    assert len(node.devices) == 2
    assert node.matrix == (("X", "SYS", "PIX"), ("SYS", "X", "SYS"), ("PIX", "SYS", "X"))


def test_table_that_is_cut_off_is_completed_by_symmetry(write):
    text = write.smi(EIGHT, lambda a, b: "NV18", {}, tabs=True)
    lines = text.splitlines()
    node = read_smi("\n".join(lines[:-1]), name="dump")  # the last row is missing
    assert all(node.relation(7, i) == "NV18" for i in range(7))
    assert any("cut off" in note for note in node.notes)


def test_device_out_of_the_fabric_is_named(write):
    """Seven devices have more links than ports, so switches join them; the eighth has fallen out."""
    text = write.smi(
        EIGHT, lambda a, b: "SYS" if "GPU5" in (a, b) else "NV18", {n: halves(n) for n in EIGHT}, tabs=True
    )
    node = read_smi(text, name="dump")
    assert node.switched
    assert [problem.message for problem in node.problems] == ["GPU5 has no NVLinks; others have 18"]
    assert describe_node(node).endswith("more with some of them left out")
    assert cluster_of(node).device.name == "h100-sxm5-80gb"


def test_dead_link_of_a_cube_mesh_is_named(write, cube_mesh):
    links = {pair: n for pair, n in cube_mesh.items() if pair != (2, 6)}

    def cell(a, b):
        return f"NV{links[pair]}" if (pair := tuple(sorted((int(a[3:]), int(b[3:]))))) in links else "SYS"

    node = read_smi(write.smi(EIGHT, cell, {}, tabs=True), name="dump")
    assert [p.message for p in node.problems] == [f"GPU{i} has 5 NVLinks; others have 6" for i in (2, 6)]
    assert "NVLink mesh (5–6 links per device), not between all pairs" in describe_node(node)


def test_half_a_cube_mesh_has_no_link_missing(write, cube_mesh):
    def cell(a, b):
        return f"NV{cube_mesh[tuple(sorted((int(a[3:]), int(b[3:]))))]}"

    node = read_smi(write.smi(EIGHT[:4], cell, {}, tabs=True), name="dump")
    assert [device.links for device in node.devices] == [4, 4, 5, 5]
    assert not node.problems


def test_dead_link_of_four_boards_is_named(write):
    pair = {"GPU1", "GPU2"}
    text = write.smi(EIGHT[:4], lambda a, b: "NV3" if {a, b} == pair else "NV4", {}, tabs=True)
    assert [p.message for p in read_smi(text, name="dump").problems] == [
        f"GPU{i} has 11 NVLinks; others have 12" for i in (1, 2)
    ]


def test_rate_of_a_link_follows_the_device_that_the_user_names(write):
    node = read_smi(write.smi(EIGHT, lambda a, b: "NV18", {}, tabs=True), name="dump")
    assert cluster_of(node, device="b200").links[0].bytes_per_second == 18 * 50e9
    assert cluster_of(node, device="h200-sxm-141gb").links[0].bytes_per_second == 18 * 25e9


def test_bonded_ports_are_ethernet(write):
    text = write.smi(["GPU0", "NIC0", "NIC1"], lambda a, b: "PIX", {}, tabs=True)
    text += "\nNIC Legend:\n\n  NIC0: mlx5_bond_0\n  NIC1: mlx5_1\n"
    assert [nic.kind for nic in read_smi(text, name="dump").nics] == ["roce", "unknown"]


def test_ethernet_beside_infiniband_is_not_for_training(write):
    """Names of a cloud's virtual machines: eight ports to other nodes and one to the rest of the world."""
    names = [f"NIC{i}" for i in range(9)]
    text = write.smi([*EIGHT, *names], lambda a, b: "NV12" if a[0] == b[0] == "G" else "NODE", {}, tabs=True)
    legend = "".join(f"  NIC{i}: mlx5_ib{i}\n" for i in range(8)) + "  NIC8: mlx5_an0\n"
    node = read_smi(f"{text}\nNIC Legend:\n\n{legend}", name="dump")
    assert [nic.compute for nic in node.nics] == [True] * 8 + [False]
    assert "one NIC per GPU" in describe_node(node)
    assert cluster_of(node).links[-1].kind == "infiniband"


def test_odd_bridge_is_reported(write):
    node = read_smi(write.smi(["GPU0", "GPU1"], lambda a, b: "NV3", {}, tabs=True), name="dump")
    assert [problem.name for problem in node.problems] == ["dead-link"]
    assert "3 NVLinks" in node.problems[0].message


def test_bridge_with_fewer_links_than_its_equal_is_reported(write):
    pairs = {frozenset(("GPU0", "GPU1")): "NV12", frozenset(("GPU2", "GPU3")): "NV6"}
    text = write.smi(EIGHT[:4], lambda a, b: pairs.get(frozenset((a, b)), "SYS"), {}, tabs=True)
    node = read_smi(text, name="dump")
    assert [problem.message for problem in node.problems] == [
        "GPU2–GPU3 are joined by 6 NVLinks, which is no full bridge"
    ]


def test_unknown_cells_and_old_names(write):
    cells = {frozenset(("GPU0", "GPU1")): "SOC", frozenset(("GPU0", "GPU2")): "QQQ"}
    text = write.smi(EIGHT[:3], lambda a, b: cells.get(frozenset((a, b)), "PHB"), {}, tabs=True)
    node = read_smi(text, name="dump")
    assert node.relation(0, 1) == "SYS"
    assert node.relation(0, 2) == "?"
    assert any("QQQ" in note for note in node.notes)


def test_processors_may_be_left_empty(write):
    """Some containers print no CPU affinity; the NUMA node stays the second column."""
    text = write.smi(
        EIGHT[:4],
        lambda a, b: "NV6",
        {n: ["", str(int(n[3:]) // 2), "", "N/A"] for n in EIGHT[:4]},
        tabs=True,
    )
    node = read_smi(text.replace("GPU NUMA ID", "\tGPU NUMA ID"), name="dump")
    assert [device.numa_node for device in node.devices] == [0, 0, 1, 1]
    assert [device.cpus for device in node.devices] == [None] * 4


def test_quoted_table_in_a_report(write):
    table = write.smi(EIGHT[:2], lambda a, b: "NV4", {}, tabs=False)
    text = "Our node:\n" + "".join(f"# {line}\n" for line in table.splitlines()) + "\nthat was it"
    assert read_smi(text, name="dump").relation(0, 1) == "NV4"


@pytest.mark.parametrize("text", ["", "GPU0 GPU1\n", "nothing here", "GPU0\tGPU0\nGPU0\tX\n"])
def test_what_is_no_table_is_refused(text):
    with pytest.raises(ConfigError, match="dump"):
        read_smi(text, name="dump")


def test_another_matrix_of_the_same_tool_is_refused(write):
    """`nvidia-smi topo -p2p n` tells whether, not how."""
    with pytest.raises(ConfigError, match=r"\(OK\); save the output of `nvidia-smi topo -m`"):
        read_smi(write.smi(EIGHT[:2], lambda a, b: "OK", {}, tabs=True), name="dump")


def test_prose_about_gpus_is_no_table():
    assert not looks_like_smi("the GPU0 is fast\nand GPU1 too")
