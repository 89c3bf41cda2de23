"""hwloc's XML (`lstopo --of xml`): processors, NUMA nodes, the PCI tree, and link bandwidths of devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.probe.identify import INTEGRATED_SYSTEMS, name_of_pci_id
from planner.probe.imports.finish import finish
from planner.probe.imports.xml import Element
from planner.probe.node import build_matrix
from planner.probe.pci import AMD, NVIDIA, distance, normal_bus_id
from profiles.errors import ConfigError
from profiles.topology import NicKind, NodeDevice, NodeNic, NodeTopology

ORIGIN = "hwloc XML"
GPU_CLASSES = ("0300", "0302", "0380", "1200")
MEGABYTE = 1e6
MAX_DEVICES = 512
FAST_TABLES = frozenset({"NVLinkBandwidth", "XGMIBandwidth", "XGMIHops"})
# One link in one direction, in MB/s, by product; 25 GB/s in all others.
LINK_MEGABYTES = {"P100": 20_000, "B200": 50_000, "B300": 50_000, "GB200": 50_000, "GB300": 50_000}
_PCI_TYPE = re.compile(r"([0-9a-f]{4}) \[([0-9a-f]{4}):([0-9a-f]{4})\]")


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A PCI device with its place in the tree."""

    element: Element
    kind: str
    pci_id: str
    bus_id: str | None
    path: tuple[str, ...]
    numa: int | None

    def info(self, *names: str) -> str | None:
        """Return the first of the named infos of the device's functions."""
        for entry in self.element.descendants("info"):
            if entry.get("name") in names:
                return entry.get("value")
        return None

    def functions(self) -> Iterator[Element]:
        """Yield the operating system's devices of this one: nvml0, mlx5_0, eth0 …"""
        return (e for e in self.element.descendants("object") if e.get("type") == "OSDev")


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """One matrix of the file: objects (by id) and a value for every ordered pair."""

    objects: list[str]
    values: list[int]

    def between(self, first: int, second: int) -> int:
        return self.values[first * len(self.objects) + second]


def read_hwloc(root: Element, *, name: str) -> NodeTopology:
    """Return the node of the file.

    Raises:
        ConfigError: when there is no accelerator in it.
    """
    machine = next((e for e in root.descendants("object") if e.get("type") == "Machine"), None)
    if machine is None:
        raise ConfigError(f"{name}: no object of type Machine; is this hwloc XML complete?")
    cards = list(_cards(root))
    gpus = sorted((c for c in cards if _is_gpu(c)), key=_gpu_order)
    nics = [(c, f) for c in cards if c.kind.startswith("02") for f in _ports(c)]
    if len(gpus) + len(nics) > MAX_DEVICES:
        raise ConfigError(f"{name}: {len(gpus)} GPUs and {len(nics)} NICs are more than any node has")
    numa_nodes = [e for e in root.descendants("object") if e.get("type") == "NUMANode"]
    memory = sum(e.number("local_memory") or 0 for e in numa_nodes)
    system = _machine_info(machine, "DMIProductName", "PlatformModel")
    if not gpus:
        return _integrated(name, system, memory, len(numa_nodes), root)
    links, host_links, switched = _fast_links(root, gpus)
    both = [*gpus, *(card for card, _ in nics)]

    def relation(a: int, b: int) -> str:
        if (a, b) in links:
            return links[a, b]
        first, second = both[a], both[b]
        return distance(
            first.path, second.path, numa=(first.numa, second.numa), numa_nodes=len(numa_nodes) or None
        )

    known = _has_distances(root)
    devices = tuple(_device(card, i, links, host_links, switched) for i, card in enumerate(gpus))
    ports = tuple(_nic(card, function) for card, function in nics)
    notes = [] if ports else ["no NIC in the file"]
    if not known:
        notes.append("the file has no link bandwidths: hwloc was run without NVML or ROCm SMI")
    node = NodeTopology(
        host=_machine_info(root, "HostName"),
        system=system,
        devices=devices,
        nics=ports,
        matrix=build_matrix(devices, ports, relation),
        numa_nodes=len(numa_nodes) or None,
        nvswitches=0 if known and not switched else None,
        switched=switched,
        links="seen" if known else "unknown",
        cores=sum(e.get("type") == "Core" for e in root.descendants("object")) or None,
        memory_bytes=memory or None,
        notes=tuple(notes),
        origins={"devices": ORIGIN, "matrix": ORIGIN, "nics": ORIGIN},
    )
    return finish(node)


def _integrated(name: str, system: str | None, memory: int, numa_nodes: int, root: Element) -> NodeTopology:
    """Return a machine whose accelerator is part of its processor, known by the product's name."""
    product = INTEGRATED_SYSTEMS.get(system or "")
    if product is None:
        raise ConfigError(f"{name}: no accelerator in this hwloc file (no NVIDIA, AMD or Intel GPU on PCI)")
    return finish(
        NodeTopology(
            host=_machine_info(root, "HostName"),
            system=system,
            devices=(NodeDevice(index=0, name=product, memory_bytes=memory or None, numa_node=0),),
            matrix=(("X",),),
            numa_nodes=numa_nodes or None,
            nvswitches=0,
            cores=sum(e.get("type") == "Core" for e in root.descendants("object")) or None,
            memory_bytes=memory or None,
            notes=(f"the file shows no GPU; {system} has one {product} that shares the processor's memory",),
            origins={"devices": f"assumed from the product name {system}", "matrix": ORIGIN},
        )
    )


def _cards(root: Element) -> Iterator[_Card]:
    for element in root.descendants("object"):
        match = _PCI_TYPE.match((element.get("pci_type") or "").lower())
        if element.get("type") != "PCIDev" or not match:
            continue
        path = [normal_bus_id(element.get("pci_busid")) or "?"]
        numa = None
        for above in element.ancestors():
            if above.get("type") == "Bridge":
                path.append(above.get("pci_busid") or f"host{above.get('bridge_pci')}")
            elif numa is None:
                numa = _single_bit(above.get("nodeset"))
        yield _Card(
            element=element,
            kind=match.group(1),
            pci_id=f"{match.group(2)}:{match.group(3)}",
            bus_id=normal_bus_id(element.get("pci_busid")),
            path=tuple(reversed(path)),
            numa=numa,
        )


def _single_bit(mask: str | None) -> int | None:
    """Return the number of the only bit of a set such as `0x00000002`; None for none or several."""
    text = (mask or "").replace(",", "") if re.fullmatch(r"0x[0-9a-fA-Fx,]{1,300}", mask or "") else ""
    words = [w or "0x0" for w in (mask or "").split(",")] if text else []
    bits = 0
    for word in words:
        bits = bits << 32 | (int(word, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", word) else 0)
    return bits.bit_length() - 1 if bits and bits & (bits - 1) == 0 else None


def _is_gpu(card: _Card) -> bool:
    """Tell a GPU that computes from a display chip of the board."""
    if not card.kind.startswith(GPU_CLASSES):
        return False
    if card.pci_id[:4] in {NVIDIA, AMD}:
        return True
    return any((f.get("name") or "").startswith(("cuda", "nvml", "rsmi", "ze")) for f in card.functions())


def _gpu_order(card: _Card) -> tuple[int, str]:
    for function in card.functions():
        match = re.fullmatch(r"(?:nvml|cuda|rsmi)(\d{1,3})", function.get("name") or "")
        if match:
            return int(match.group(1)), card.bus_id or ""
    return MAX_DEVICES, card.bus_id or ""


def _ports(card: _Card) -> list[Element]:
    """Return the RDMA functions of a NIC, else its network interfaces."""
    functions = list(card.functions())
    rdma = [f for f in functions if any(i.get("name") == "NodeGUID" for i in f.descendants("info"))]
    return rdma or functions


def _nic(card: _Card, function: Element) -> NodeNic:
    infos = {i.get("name"): i.get("value") for i in function.descendants("info")}
    rdma = "NodeGUID" in infos
    state = infos.get("Port1State")
    kind: NicKind = "ethernet"
    if rdma:
        # An InfiniBand port has a local identifier from its subnet manager; a RoCE port has none.
        kind = "infiniband" if infos.get("Port1LID") not in {None, "0x0", "0"} else "roce"
    return NodeNic(
        name=function.get("name") or "nic",
        kind=kind,
        state="unknown" if state is None else ("active" if state == "4" else "down"),
        bus_id=card.bus_id,
        numa_node=card.numa,
    )


def _device(
    card: _Card, index: int, links: dict[tuple[int, int], str], host: dict[int, int], switched: bool
) -> NodeDevice:
    name = card.info("GPUModel") or name_of_pci_id(card.pci_id)
    cells = [cell for (a, _), cell in links.items() if a == index]
    counts = [int(cell[2:]) if cell.startswith("NV") else 1 for cell in cells]
    memory = _kibibytes(card.info("CUDAGlobalMemorySize", "RSMIVRAMSize", "OpenCLGlobalMemorySize"))
    units = card.info("CUDAMultiProcessors") or ""
    rate = card.element.attributes.get("pci_link_speed", "")
    return NodeDevice(
        index=index,
        vendor="amd"
        if card.pci_id.startswith(AMD)
        else "nvidia"
        if card.pci_id.startswith(NVIDIA)
        else "other",
        name=name,
        uuid=card.info("NVIDIAUUID"),
        bus_id=card.bus_id,
        pci_id=card.pci_id,
        memory_bytes=memory,
        multiprocessors=int(units) if re.fullmatch(r"[1-9]\d{0,4}", units) else None,
        pcie_bytes_per_second=float(rate) * 1e9 if re.fullmatch(r"[1-9]\d{0,3}(\.\d{1,9})?", rate) else None,
        numa_node=card.numa,
        links=(max(counts, default=0) if switched else sum(counts)) if counts else None,
        link_bytes_per_second=_link_megabytes(card) * MEGABYTE if counts and cells[0] != "XGMI" else None,
        host_links=host.get(index),
    )


def _kibibytes(text: str | None) -> int | None:
    match = re.fullmatch(r"([1-9]\d{0,15})\s*(?:KiB|kB)?", text or "")
    return int(match.group(1)) * 1024 if match else None


def _link_megabytes(card: _Card) -> int:
    name = card.info("GPUModel") or name_of_pci_id(card.pci_id) or ""
    return next((rate for product, rate in LINK_MEGABYTES.items() if product in name), 25_000)


def _machine_info(element: Element, *names: str) -> str | None:
    for child in element.children:
        if child.tag == "info" and child.get("name") in names:
            return child.get("value")
    return None


def _has_distances(root: Element) -> bool:
    return any((e.get("name") or "") in FAST_TABLES for e in _tables(root))


def _tables(root: Element) -> Iterator[Element]:
    for tag in ("distances2", "distances2hetero"):
        yield from root.descendants(tag)


@dataclass(kw_only=True)
class _FastLinks:
    """Links by what they join, while the matrices of the file are read."""

    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    to_host: dict[int, int] = field(default_factory=dict)
    to_switch: dict[int, int] = field(default_factory=dict)

    def end_elsewhere(self, here: int, far_end: str, links: int) -> None:
        """Take in links from a device to an object that is none: a processor, else a switch."""
        ends = self.to_host if far_end.startswith(("Package", "NUMANode", "Machine")) else self.to_switch
        ends[here] = ends.get(here, 0) + links

    def join(self, pair: tuple[int, int], kind: str, value: int, links: int) -> None:
        """Take in the value of a matrix for a pair of devices."""
        if kind == "NVLinkBandwidth":
            self.pairs[pair] = f"NV{links}"
        elif kind == "XGMIBandwidth" or value == 1:
            self.pairs[pair] = "XGMI"


def _fast_links(root: Element, gpus: list[_Card]) -> tuple[dict[tuple[int, int], str], dict[int, int], bool]:
    """Return the cells of device pairs, the links of devices to processors, and whether switches join."""
    owner: dict[str, int] = {}
    for index, card in enumerate(gpus):
        for element in (card.element, *card.functions()):
            owner[f"{element.get('type')}:{element.get('gp_index')}"] = index
    found = _FastLinks()
    for table in _tables(root):
        kind, distances = table.get("name") or "", _distances(table)
        if kind not in FAST_TABLES or distances is None:
            continue
        for a, first in enumerate(distances.objects):
            for b, second in enumerate(distances.objects):
                value = distances.between(a, b)
                if a == b or value <= 0 or first not in owner:
                    continue
                links = max(1, round(value / _link_megabytes(gpus[owner[first]])))
                if second in owner:
                    found.join((owner[first], owner[second]), kind, value, links)
                else:
                    found.end_elsewhere(owner[first], second, links)
    for a, links_a in found.to_switch.items():
        for b, links_b in found.to_switch.items():
            if a != b:
                found.pairs.setdefault((a, b), f"NV{min(links_a, links_b)}")
    return found.pairs, found.to_host, bool(found.to_switch)


def _distances(table: Element) -> _Distances | None:
    """Return a matrix; None when its parts do not fit together."""
    default = table.get("type") or ""
    objects = [
        word if ":" in word else f"{default}:{word}"
        for part in table.children
        if part.tag == "indexes"
        for word in part.text.split()
    ]
    words = [word for part in table.children if part.tag == "u64values" for word in part.text.split()]
    if not objects or len(words) != len(objects) ** 2 or not all(re.fullmatch(r"\d{1,20}", w) for w in words):
        return None
    return _Distances(objects=objects, values=[int(word) for word in words])
