"""hwloc's XML (`lstopo --of xml`): processors, NUMA nodes, the PCI tree, and link bandwidths of devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from planner.probe.identify import INTEGRATED_SYSTEMS, link_rate, name_of_pci_id
from planner.probe.imports.finish import finish
from planner.probe.imports.hwloc_links import FastLinks, has_fast_tables, read_fast_links
from planner.probe.imports.xml import Element
from planner.probe.node import build_matrix
from planner.probe.order import hop_count, link_count
from planner.probe.pci import AMD, NVIDIA, distance, normal_bus_id
from profiles.errors import ConfigError
from profiles.topology import NicKind, NodeDevice, NodeNic, NodeTopology

ORIGIN = "hwloc XML"
GPU_CLASSES = ("0300", "0302", "0380", "1200")
MAX_DEVICES = 512
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
    numa_nodes = [e for e in root.descendants("object") if _is_host_memory(e)]
    memory = sum(e.number("local_memory") or 0 for e in numa_nodes)
    system = _machine_info(machine, "DMIProductName", "PlatformModel")
    if not gpus:
        return _integrated(name, system, memory, len(numa_nodes), root)
    links = _links(root, gpus)
    switched = bool(links.switches)
    both = [*gpus, *(card for card, _ in nics)]

    def relation(a: int, b: int) -> str:
        if (a, b) in links.pairs:
            return links.pairs[a, b]
        first, second = both[a], both[b]
        return distance(
            first.path, second.path, numa=(first.numa, second.numa), numa_nodes=len(numa_nodes) or None
        )

    known = _shows_links(root, gpus)
    devices = tuple(_device(card, i, links) for i, card in enumerate(gpus))
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
        nvswitches=links.switch_count if known else None,
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


def _device(card: _Card, index: int, links: FastLinks) -> NodeDevice:
    name = _product(card)
    cells = [cell for (a, _), cell in links.pairs.items() if a == index]
    counts = [link_count(cell) for cell in cells]
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
        links=(max(counts) if links.switches else sum(counts)) if counts else None,
        link_bytes_per_second=link_rate(name) if counts and not hop_count(cells[0]) else None,
        host_links=links.to_host.get(index),
    )


def _links(root: Element, gpus: list[_Card]) -> FastLinks:
    owner = {
        f"{element.get('type')}:{element.get('gp_index')}": index
        for index, card in enumerate(gpus)
        for element in (card.element, *card.functions())
    }
    rates = [link_rate(_product(card), amd=card.pci_id.startswith(AMD)) for card in gpus]
    return read_fast_links(root, owner, rates)


def _product(card: _Card) -> str | None:
    return card.info("GPUModel") or name_of_pci_id(card.pci_id)


def _kibibytes(text: str | None) -> int | None:
    match = re.fullmatch(r"([1-9]\d{0,15})\s*(?:KiB|kB)?", text or "")
    return int(match.group(1)) * 1024 if match else None


def _machine_info(element: Element, *names: str) -> str | None:
    for child in element.children:
        if child.tag == "info" and child.get("name") in names:
            return child.get("value")
    return None


def _is_host_memory(element: Element) -> bool:
    """Tell a NUMA node of the host from the memory of a Grace superchip's GPU, which is one too."""
    return element.get("type") == "NUMANode" and element.get("subtype") != "GPUMemory"


def _shows_links(root: Element, gpus: list[_Card]) -> bool:
    """Tell whether the file would show NVLinks and xGMI: names tell that hwloc asked the vendor's library."""
    if has_fast_tables(root):
        return True
    return any((f.get("name") or "").startswith(("nvml", "rsmi")) for gpu in gpus for f in gpu.functions())
