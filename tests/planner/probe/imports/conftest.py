"""Topology files of our own making, in the shapes that tools write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

PUBLISHED = Path(__file__).parents[4].parent / "shared" / "published" / "topology"

CUBE_MESH = {
    (0, 1): 1,
    (0, 2): 1,
    (0, 3): 2,
    (0, 4): 2,
    (1, 2): 2,
    (1, 3): 1,
    (1, 5): 2,
    (2, 3): 2,
    (2, 6): 1,
}
CUBE_MESH |= {(3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2}


def smi_table(
    names: Sequence[str], cell: Callable[[str, str], str], affinity: dict[str, Sequence[str]], *, tabs: bool
) -> str:
    """What `nvidia-smi topo -m` prints: head, rows, and the affinities of the GPUs."""
    heads = ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"][: max(map(len, affinity.values()), default=0)]
    rows = [["", *names, *heads]]
    for row in names:
        rows.append([row, *(" X " if row == column else cell(row, column) for column in names)])
        rows[-1] += affinity.get(row, [])
    if tabs:
        return "\n".join("\t".join(row) for row in rows) + "\n"
    return "\n".join("".join(f"{word:<16}" for word in row) for row in rows) + "\n"


def nccl_file(*, cpus: Sequence[str], attributes: str = "") -> str:
    """A topology of NCCL's around the given content of every processor."""
    body = "".join(
        f'<cpu numaid="{i}" affinity="0000ffff" arch="x86_64" vendor="AuthenticAMD">{content}</cpu>\n'
        for i, content in enumerate(cpus)
    )
    return f'<system version="1"{attributes}>\n{body}</system>\n'


def gpu(
    bus: str, *, dev: int, sm: int = 90, device: str = "0x2330", links: Sequence[tuple[str, int, str]] = ()
) -> str:
    """A GPU as NCCL dumps it; links are (far end's bus id, count, class)."""
    inside = "".join(f'<nvlink target="{t}" count="{n}" tclass="{c}"/>' for t, n, c in links)
    return (
        f'<pci busid="{bus}" class="0x030200" vendor="0x10de" device="{device}" link_speed="32.0 GT/s PCIe"'
        f' link_width="16"><gpu dev="{dev}" sm="{sm}" rank="{dev}" gdr="1">{inside}</gpu></pci>'
    )


def nic(bus: str, name: str, *, speed: int = 400000) -> str:
    """A NIC as NCCL dumps it."""
    return (
        f'<pci busid="{bus}" class="0x020700" link_width="16"><nic>'
        f'<net name="{name}" dev="0" speed="{speed}" port="1" maxconn="131072" gdr="1"/></nic></pci>'
    )


def switch(bus: str, *inside: str) -> str:
    """A PCIe switch around other elements."""
    return f'<pci busid="{bus}" class="0x060400" link_width="16">{"".join(inside)}</pci>'


def rocm_tables(
    cells: Sequence[Sequence[str]],
    *,
    numa: Sequence[int] = (),
    hops: str = "1",
    weight: Callable[[int, int], int] = lambda i, j: 15,
) -> str:
    """What `rocm-smi --showtopo` prints."""
    names = [f"GPU{i}" for i in range(len(cells))]

    def table(title: str, value: Callable[[int, int], str]) -> str:
        head = " " * 7 + "".join(f"{name:<13}" for name in names)
        rows = [
            f"{n:<7}" + "".join(f"{value(i, j):<13}" for j in range(len(names))) for i, n in enumerate(names)
        ]
        return "\n".join([f"{f' {title} ':=^80}", head, *rows, ""])

    text = table("Weight between two GPUs", lambda i, j: "0" if i == j else str(weight(i, j)))
    text += "\n" + table("Hops between two GPUs", lambda i, j: "0" if i == j else hops)
    text += "\n" + table("Link Type between two GPUs", lambda i, j: "0" if i == j else cells[i][j])
    text += f"\n{' Numa Nodes ':=^80}\n"
    text += "".join(f"GPU[{i}]\t\t: (Topology) Numa Node: {n}\n" for i, n in enumerate(numa))
    return text + f"{' End of ROCm SMI Log ':=^80}\n"


@pytest.fixture(scope="session")
def write() -> SimpleNamespace:
    """The writers of the formats."""
    return SimpleNamespace(smi=smi_table, nccl=nccl_file, gpu=gpu, nic=nic, switch=switch, rocm=rocm_tables)


@pytest.fixture(scope="session")
def samples() -> dict[str, str]:
    """One sound file of each kind, small enough to spoil byte by byte."""
    four = [f"GPU{i}" for i in range(4)]
    pair = {("GPU0", "GPU1"), ("GPU1", "GPU0"), ("GPU2", "GPU3"), ("GPU3", "GPU2")}
    smi = smi_table(
        [*four, "NIC0"],
        lambda a, b: "NV4" if (a, b) in pair else "SYS",
        {name: ["0-15", "0"] if name < "GPU2" else ["16-31", "1"] for name in four},
        tabs=True,
    )
    nccl = nccl_file(
        cpus=[
            switch("0000:01:00.0", gpu("0000:02:00.0", dev=0), nic("0000:03:00.0", "mlx5_0")),
            switch("0000:81:00.0", gpu("0000:82:00.0", dev=1), nic("0000:83:00.0", "mlx5_1")),
        ]
    )
    rocm = rocm_tables([["XGMI"] * 4] * 4, numa=[0, 0, 1, 1])
    return {"smi": smi, "nccl": nccl, "rocm": rocm, "hwloc": HWLOC}


HWLOC = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
 <object type="Machine" os_index="0" nodeset="0x00000003" gp_index="1">
  <info name="DMIProductName" value="Some Server"/>
  <object type="Package" os_index="0" nodeset="0x00000001" gp_index="3">
   <object type="NUMANode" os_index="0" nodeset="0x00000001" gp_index="4" local_memory="68719476736"/>
   <object type="Core" os_index="0" gp_index="5"/>
   <object type="Bridge" gp_index="20" bridge_type="0-1" bridge_pci="0000:[00-05]">
    <object type="Bridge" gp_index="21" bridge_type="1-1" pci_busid="0000:00:01.0">
     <object type="PCIDev" gp_index="22" pci_busid="0000:01:00.0" pci_type="0302 [10de:20b5] [10de:0000] a1"
       pci_link_speed="31.507692">
      <object type="OSDev" gp_index="30" name="nvml0" osdev_type="1">
       <info name="GPUModel" value="NVIDIA A100 80GB PCIe"/></object></object></object>
    <object type="Bridge" gp_index="23" bridge_type="1-1" pci_busid="0000:00:02.0">
     <object type="PCIDev" gp_index="24" pci_busid="0000:02:00.0" pci_type="0302 [10de:20b5] [10de:0000] a1">
      <object type="OSDev" gp_index="31" name="nvml1" osdev_type="1">
       <info name="GPUModel" value="NVIDIA A100 80GB PCIe"/></object></object></object>
    <object type="Bridge" gp_index="25" bridge_type="1-1" pci_busid="0000:00:03.0">
     <object type="PCIDev" gp_index="26" pci_busid="0000:03:00.0" pci_type="0207 [15b3:101b] [15b3:0006] 00">
      <object type="OSDev" gp_index="32" name="ib0" osdev_type="2"/>
      <object type="OSDev" gp_index="33" name="mlx5_0" osdev_type="3">
       <info name="NodeGUID" value="b859:9f03:0000:0001"/><info name="Port1State" value="4"/>
       <info name="Port1LID" value="0x7"/></object></object></object>
    <object type="PCIDev" gp_index="27" pci_busid="0000:04:00.0" pci_type="0300 [1a03:2000] [1a03:2000] 41"/>
   </object></object>
  <object type="Package" os_index="1" nodeset="0x00000002" gp_index="6">
   <object type="NUMANode" os_index="1" nodeset="0x00000002" gp_index="7" local_memory="68719476736"/>
   <object type="Core" os_index="1" gp_index="8"/></object>
 </object>
 <distances2 type="OSDev" nbobjs="2" kind="25" name="NVLinkBandwidth" indexing="gp">
  <indexes length="6">30 31 </indexes>
  <u64values length="30">1000000 300000 300000 1000000 </u64values>
 </distances2>
 <info name="HostName" value="server-a"/>
</topology>
"""


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published dumps; tests of it skip where it is not."""
    if not (PUBLISHED / "INDEX.yaml").exists():
        pytest.skip(f"{PUBLISHED} is not here")
    return PUBLISHED


@pytest.fixture(scope="session")
def mi250x() -> dict[tuple[int, int], int]:
    """The xGMI links of a node of eight MI250X dies."""
    four, two = [(0, 1), (2, 3), (4, 5), (6, 7)], [(0, 6), (1, 3), (2, 4), (5, 7)]
    one = [(0, 2), (1, 5), (3, 7), (4, 6)]
    return dict.fromkeys(four, 4) | dict.fromkeys(two, 2) | dict.fromkeys(one, 1)


@pytest.fixture(scope="session")
def cube_mesh() -> dict[tuple[int, int], int]:
    """The NVLinks of a hybrid cube mesh."""
    return CUBE_MESH
