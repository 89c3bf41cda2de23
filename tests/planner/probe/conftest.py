"""Machines that are not here: a stand-in for NVML, a stand-in for /sys, and the boxes people train on."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from planner.probe.files import LiveFiles
from planner.probe.machine import Sources
from planner.probe.nvml import LiveNvml

ANCESTOR = {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}
Pair = tuple[int, int]


@dataclass(kw_only=True)
class Tree:
    """A folder that stands in for `/`."""

    root: Path

    def write(self, path: str, text: str | int) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def link(self, path: str, target: str) -> None:
        link = self.root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.root / target.lstrip("/"))

    def pci(self, path: str, *, vendor: str, device: str, kind: str, numa: int, cpus: str = "0-3") -> str:
        """Add a device below /sys/devices; `path` is `pci0000:00/0000:00:01.0/…`. Returns its sysfs path."""
        place = f"/sys/devices/{path}"
        for name, text in (("vendor", f"0x{vendor}"), ("device", f"0x{device}"), ("class", f"0x{kind}")):
            self.write(f"{place}/{name}", text)
        self.write(f"{place}/numa_node", numa)
        self.write(f"{place}/local_cpulist", cpus)
        self.link(f"/sys/bus/pci/devices/{path.rsplit('/', 1)[-1]}", place)
        return place

    def nic(
        self, name: str, place: str, *, rate: str, layer: str = "InfiniBand", state: str = "4: ACTIVE"
    ) -> None:
        base = f"/sys/class/infiniband/{name}"
        self.link(f"{base}/device", place)
        self.write(f"{base}/ports/1/rate", rate)
        self.write(f"{base}/ports/1/link_layer", layer)
        self.write(f"{base}/ports/1/state", state)

    def host(self, *, numa_nodes: int, cpus: int = 8, name: str = "node-a") -> None:
        self.write("/proc/sys/kernel/hostname", name)
        self.write("/proc/meminfo", "MemTotal:       1056000000 kB\nMemAvailable:   1000000000 kB")
        self.write("/proc/self/status", f"Cpus_allowed_list:\t0-{cpus - 1}")
        processors = (f"processor\t: {i}\nmodel name\t: Some CPU\nflags\t: avx2\n" for i in range(cpus))
        self.write("/proc/cpuinfo", "\n".join(processors))
        for node in range(numa_nodes):
            (self.root / f"sys/devices/system/node/node{node}").mkdir(parents=True, exist_ok=True)


@dataclass(kw_only=True)
class Box:
    """A machine: what its NVML would say, line by line, and its /sys."""

    tree: Tree
    devices: int
    name: str = "NVIDIA H100 80GB HBM3"
    capability: str = "9 0"
    memory: int = 85520809984
    cores: int = 16896
    clock: int = 1980
    memory_clock: int = 2619
    bus_bits: int = 5120
    watts: int = 700
    pcie: str = "5 16"
    pci_id: str = "0x233010de"
    link_count: int | None = None  # links in hardware; None: no NVLink at all
    link_version: int = 6
    switch_links: tuple[int, ...] = ()  # links of every device to each switch
    switches_visible: bool = True
    direct: dict[Pair, int] = field(default_factory=dict)  # links between two devices
    ancestors: Callable[[int, int], str] = lambda a, b: "SYS"
    numa_of: Callable[[int], int] = lambda i: i // 4
    overrides: dict[str, str | None] = field(default_factory=dict)

    def bus(self, device: int) -> str:
        return f"0000:{0x10 + 0x10 * device:02x}:00.0"

    def profile(self) -> dict[str, str]:
        """Return every answer, by its question."""
        lines = {"nvmlSystemGetDriverVersion": "550.54.15", "nvmlDeviceGetCount": str(self.devices)}
        for i in range(self.devices):
            lines |= self._device(i) | self._links(i)
        for a, b in itertools.permutations(range(self.devices), 2):
            joined = bool(self.switch_links) or (min(a, b), max(a, b)) in self.direct
            if self.link_count:
                lines[f"nvmlDeviceGetP2PStatus gpu{a} gpu{b} 2"] = "0" if joined else "5"
            lines[f"nvmlDeviceGetTopologyCommonAncestor gpu{a} gpu{b}"] = str(ANCESTOR[self.ancestors(a, b)])
        for key, value in self.overrides.items():
            if value is None:
                lines.pop(key, None)
            else:
                lines[key] = value
        return lines

    def _device(self, i: int) -> dict[str, str]:
        gpu = f"gpu{i}"
        generation, width = self.pcie.split()
        return {
            f"nvmlDeviceGetName {gpu}": self.name,
            f"nvmlDeviceGetUUID {gpu}": f"GPU-00000000-0000-0000-0000-{i:012d}",
            f"nvmlDeviceGetPciInfo {gpu}": f"0000{self.bus(i).upper()} {self.pci_id}",
            f"nvmlDeviceGetCudaComputeCapability {gpu}": self.capability,
            f"nvmlDeviceGetMemoryInfo {gpu}": str(self.memory),
            f"nvmlDeviceGetNumGpuCores {gpu}": str(self.cores),
            f"nvmlDeviceGetMaxClockInfo {gpu} 1": str(self.clock),
            f"nvmlDeviceGetMaxClockInfo {gpu} 2": str(self.memory_clock),
            f"nvmlDeviceGetMemoryBusWidth {gpu}": str(self.bus_bits),
            f"nvmlDeviceGetEnforcedPowerLimit {gpu}": str(self.watts * 1000),
            f"nvmlDeviceGetPowerManagementDefaultLimit {gpu}": str(self.watts * 1000),
            f"nvmlDeviceGetMaxPcieLinkGeneration {gpu}": generation,
            f"nvmlDeviceGetMaxPcieLinkWidth {gpu}": width,
            f"nvmlDeviceGetCurrPcieLinkWidth {gpu}": width,
            f"nvmlDeviceGetVirtualizationMode {gpu}": "0",
            f"nvmlDeviceGetMigMode {gpu}": "0 0",
            f"nvmlDeviceGetTotalEccErrors {gpu} 1 0": "0",
            f"nvmlDeviceGetRemappedRows {gpu}": "0 0 0 0",
        }

    def _links(self, i: int) -> dict[str, str]:
        if self.link_count is None:
            return {}
        ends: list[tuple[str, str]] = []  # far end's type and bus id
        for switch, count in enumerate(self.switch_links):
            shown = f"00000000:{5 + switch:02x}:00.0" if self.switches_visible else ""
            ends += [("2", shown)] * count
        for (a, b), count in sorted(self.direct.items()):
            if i in (a, b):
                ends += [("0", f"0000{self.bus(b if i == a else a).upper()}")] * count
        lines = {f"nvmlDeviceGetFieldValues gpu{i} 91 0": str(self.link_count)}
        old = int(self.capability.split()[0]) < 9
        for link in range(self.link_count):
            up = link < len(ends)
            state = (
                f"nvmlDeviceGetNvLinkState gpu{i} {link}"
                if old
                else f"nvmlDeviceGetFieldValues gpu{i} 165 {link}"
            )
            lines[state] = "1" if up else "0"
            if up:
                lines[f"nvmlDeviceGetNvLinkVersion gpu{i} {link}"] = str(self.link_version)
                lines[f"nvmlDeviceGetNvLinkRemoteDeviceType gpu{i} {link}"] = ends[link][0]
                lines[f"nvmlDeviceGetNvLinkRemotePciInfo gpu{i} {link}"] = f"{ends[link][1]} 0x0"
        return lines

    def plug(
        self, *, nic_of: dict[int, int], rate: str, layer: str = "InfiniBand", nic_vendor: str = "15b3"
    ) -> None:
        """Lay out the PCI tree: each device behind a switch of its own, NICs behind that of a device."""
        for i in range(self.devices):
            root, base = f"pci0000:{0x0F + 0x10 * i:02x}", 0x0F + 0x10 * i
            top = f"{root}/0000:{base:02x}:01.0/0000:{base:02x}:02.0"
            numa = self.numa_of(i)
            vendor, device = self.pci_id[6:], self.pci_id[2:6]
            self.tree.pci(
                f"{top}/0000:{base:02x}:03.0/{self.bus(i)}",
                vendor=vendor,
                device=device,
                kind="030200",
                numa=numa,
            )
            for nic, at in nic_of.items():
                if at == i:
                    bus = f"0000:{base + 1:02x}:{nic + 1:02x}.0"
                    place = self.tree.pci(
                        f"{top}/0000:{base:02x}:04.0/{bus}",
                        vendor=nic_vendor,
                        device="1021",
                        kind="020700",
                        numa=numa,
                    )
                    self.tree.nic(f"mlx5_{nic}", place, rate=rate, layer=layer)

    def sources(self) -> Sources:
        """Point the stand-in for NVML at this box."""
        text = "".join(f"{key} = {value}\n" for key, value in self.profile().items())
        profile = self.tree.root / "nvml-profile.txt"
        profile.write_text(text)
        os.environ["FAKE_NVML_PROFILE"] = str(profile)
        return Sources(nvml=LiveNvml(), files=LiveFiles(root=self.tree.root))


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


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The machines of the tests, each laid out in a folder of its own."""

    folder: Path

    def tree(self, numa_nodes: int = 2) -> Tree:
        tree = Tree(root=self.folder)
        tree.host(numa_nodes=numa_nodes)
        return tree

    def hgx_h100(self) -> Box:
        box = Box(tree=self.tree(), devices=8, link_count=18, switch_links=(5, 4, 4, 5))
        box.plug(nic_of={i: i for i in range(8)}, rate="400 Gb/sec (4X NDR)")
        return box

    def dgx_a100(self) -> Box:
        box = Box(
            tree=self.tree(8),
            devices=8,
            name="NVIDIA A100-SXM4-80GB",
            capability="8 0",
            memory=85899345920,
            cores=6912,
            clock=1410,
            memory_clock=1593,
            watts=400,
            pcie="4 16",
            pci_id="0x20b210de",
            link_count=12,
            link_version=4,
            switch_links=(2,) * 6,
            numa_of=lambda i: i,
        )
        box.plug(nic_of={i: i for i in range(8)}, rate="200 Gb/sec (4X HDR)")
        # Two more ports for storage, on bridges of their own.
        for nic, root in ((8, "e0"), (9, "f0")):
            place = box.tree.pci(
                f"pci0000:{root}/0000:{root}:01.0/0000:{root}:02.0",
                vendor="15b3",
                device="1021",
                kind="020700",
                numa=7,
            )
            box.tree.nic(f"mlx5_{nic}", place, rate="200 Gb/sec (4X HDR)")
        return box

    def dgx1(self) -> Box:
        box = Box(
            tree=self.tree(),
            devices=8,
            name="Tesla V100-SXM2-16GB",
            capability="7 0",
            memory=16945512448,
            cores=5120,
            clock=1530,
            memory_clock=877,
            bus_bits=4096,
            watts=300,
            pcie="3 16",
            pci_id="0x1db110de",
            link_count=6,
            link_version=2,
            direct=CUBE_MESH,
        )
        box.plug(nic_of={0: 0, 1: 2, 2: 4, 3: 6}, rate="100 Gb/sec (4X EDR)")
        return box

    def nvl72(self) -> Box:
        box = Box(
            tree=self.tree(),
            devices=4,
            name="NVIDIA GB200",
            capability="10 0",
            memory=198674743296,
            cores=18944,
            clock=2062,
            memory_clock=3996,
            bus_bits=8192,
            watts=1200,
            pci_id="0x294110de",
            link_count=18,
            link_version=7,
            switch_links=(18,),
            switches_visible=False,
            numa_of=lambda i: i // 2,
        )
        for i in range(4):
            box.overrides[f"nvmlDeviceGetFieldValues gpu{i} 170 0"] = "10"
            box.overrides[f"nvmlDeviceGetGpuFabricInfoV gpu{i}"] = (
                "a1b2c3d4e5f60718293a4b5c6d7e8f90 32766 3 1aa"
            )
        box.plug(nic_of={i: i for i in range(4)}, rate="400 Gb/sec (4X NDR)")
        return box

    def rtx4090(self) -> Box:
        box = Box(
            tree=self.tree(),
            devices=8,
            name="NVIDIA GeForce RTX 4090",
            capability="8 9",
            memory=25757220864,
            cores=16384,
            clock=2520,
            memory_clock=10501,
            bus_bits=384,
            watts=450,
            pcie="4 16",
            pci_id="0x268410de",
            ancestors=lambda a, b: "NODE" if a // 4 == b // 4 else "SYS",
        )
        box.plug(nic_of={0: 6}, rate="25 Gb/sec (1X EDR)", layer="Ethernet")
        return box

    def pairs(self, *pairs: Pair) -> Box:
        box = Box(
            tree=self.tree(),
            devices=4,
            name="NVIDIA A100 80GB PCIe",
            capability="8 0",
            memory=85899345920,
            cores=6912,
            clock=1410,
            memory_clock=1512,
            watts=300,
            pcie="4 16",
            pci_id="0x20b510de",
            link_count=12,
            link_version=4,
            direct=dict.fromkeys(pairs, 12),
            numa_of=lambda i: i // 2,
            ancestors=lambda a, b: "NODE" if a // 2 == b // 2 else "SYS",
        )
        box.plug(nic_of={0: 0}, rate="100 Gb/sec (4X EDR)")
        return box

    def mig(self) -> Box:
        box = self.pairs((0, 1), (2, 3))
        box.devices, box.name = 2, "NVIDIA A100-SXM4-80GB"
        for i in range(2):
            box.overrides |= {
                f"nvmlDeviceGetMigMode gpu{i}": "1 1",
                f"nvmlDeviceGetMaxMigDeviceCount gpu{i}": "7",
            }
            for part in range(3):
                gpu = f"gpu{i}/{part}"
                box.overrides |= {
                    f"nvmlDeviceGetUUID {gpu}": f"MIG-{i}-{part}",
                    f"nvmlDeviceGetName {gpu}": "NVIDIA A100-SXM4-80GB MIG 2g.20gb",
                    f"nvmlDeviceGetMemoryInfo {gpu}": str(20 << 30),
                    f"nvmlDeviceGetAttributes {gpu}": "28",
                }
        return box


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the stand-in and load it, so that the binding finds it under the name it asks for."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *options, "-o", library, source], check=True)
    ctypes.CDLL(str(library))
    return library


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty stand-in for `/`."""
    return Tree(root=tmp_path)


@pytest.fixture
def boxes(fake_nvml: Path, tmp_path: Path) -> Iterator[Boxes]:
    """The machines, under the unmodified binding."""
    before = os.environ.get("FAKE_NVML_PROFILE")
    yield Boxes(folder=tmp_path)
    if before is None:
        os.environ.pop("FAKE_NVML_PROFILE", None)
