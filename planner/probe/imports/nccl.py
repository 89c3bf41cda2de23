"""NCCL's topology file (NCCL_TOPO_DUMP_FILE, or what a cloud ships for NCCL_TOPO_FILE).

system > cpu (numaid, affinity) > pci (busid, class, link_speed, link_width) > gpu > nvlink (target, count),
and nic > net (name, speed in Mb/s). Bridges are pci elements around others; a file of a cloud often has no
gpu elements, and NVLink is then found by NCCL when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from planner.probe.host import format_cpu_list
from planner.probe.identify import kind_of_nic, name_of_pci_id
from planner.probe.imports.finish import finish, switched_board
from planner.probe.imports.nccl_links import GPU_CLASSES, GpuLinks, joined_pairs, read_links
from planner.probe.imports.xml import Element
from planner.probe.node import build_matrix
from planner.probe.pci import (
    AMAZON,
    AMD,
    NVIDIA,
    distance,
    generation_of,
    link_bytes_per_second,
    normal_bus_id,
)
from profiles.errors import ConfigError
from profiles.topology import NicKind, NodeDevice, NodeNic, NodeTopology

ORIGIN = "NCCL topology file"
GPU_VENDORS = frozenset({NVIDIA, AMD})
NIC_CLASS = "0x02"
LINK_RATE = {60: 20e9, 61: 20e9, 86: 14.0625e9, 100: 50e9, 103: 50e9}  # by sm; 25 GB/s in all others
MAX_DEVICES = 512


@dataclass(kw_only=True)
class _Slot:
    """A GPU or a NIC and its place: the path from its processor, and the NUMA node of that."""

    element: Element
    path: tuple[str, ...]
    numa: int | None
    cpus: str | None
    bus_id: str | None
    index: int = 0


def read_nccl(root: Element, *, name: str) -> NodeTopology:
    """Return the node of the file; of a file that joins several hosts, the first.

    Raises:
        ConfigError: when there is no GPU in it.
    """
    processors, hosts = _first_host(root)
    gpus, nics = _slots(processors)
    if not gpus:
        raise ConfigError(f"{name}: no GPU in this NCCL topology (no pci element of class 0x0300 or 0x0302)")
    if len(gpus) + len(nics) > MAX_DEVICES:
        raise ConfigError(f"{name}: {len(gpus)} GPUs and {len(nics)} NICs are more than any node has")
    _number(gpus)
    links = [read_links(gpu.element, gpu.bus_id) for gpu in gpus]
    cells = joined_pairs(links)
    both = [*gpus, *nics]

    def relation(a: int, b: int) -> str:
        numa = (both[a].numa, both[b].numa)
        return cells.get((a, b)) or distance(both[a].path, both[b].path, numa=numa, switch_levels=1)

    switches = set().union(*(each.switches for each in links))
    fabric = f"{hosts} hosts of one file" if hosts > 1 and switches else None
    devices = tuple(_device(gpu, each, fabric) for gpu, each in zip(gpus, links, strict=True))
    seen = _shows_links(gpus, links, devices)
    ports = tuple(_nic(nic, i) for i, nic in enumerate(nics))
    node = NodeTopology(
        devices=devices,
        nics=ports,
        matrix=build_matrix(devices, ports, relation),
        numa_nodes=len({cpu.get("numaid") for cpu in processors}) or None,
        nvswitches=None if not seen or None in switches else len(switches),
        switched=bool(switches),
        links="seen" if seen else "unknown",
        notes=tuple(_notes(hosts, sum(each.to_itself for each in links), seen, ports)),
        origins={"devices": ORIGIN, "matrix": ORIGIN, "nics": ORIGIN},
    )
    return finish(node)


def _shows_links(gpus: list[_Slot], links: list[GpuLinks], devices: tuple[NodeDevice, ...]) -> bool:
    """Tell whether the file would show NVLinks and xGMI: some are there, or NCCL dumped it while it ran.

    Only a dump gives GPUs a rank. Links that lead back to their own GPU stand for some that were not found,
    and a board that has NVSwitches has links whatever the file says.
    """
    if any(each.nvlinks or each.to_host or each.xgmi for each in links):
        return True
    dumped = any((gpu := _child(slot.element, "gpu")) and gpu.get("rank") for slot in gpus)
    return dumped and not any(each.to_itself for each in links) and switched_board(devices) is None


def _notes(hosts: int, self_loops: int, seen: bool, ports: tuple[NodeNic, ...]) -> Iterator[str]:
    """Yield what the file cannot tell."""
    if hosts > 1:
        yield f"the file joins {hosts} hosts; this is the first of them"
    if self_loops:
        yield f"{self_loops} device(s) have NVLink entries that lead back to themselves: a placeholder"
    if not seen:
        yield "NVLink is not in this file: NCCL finds it when it runs"
    if not ports:
        yield "no NIC in the file"
    elif any(nic.bytes_per_second is None for nic in ports):
        yield "the file gives no rate for NICs"


def _first_host(root: Element) -> tuple[list[Element], int]:
    """Return the processors of the first host, and the number of hosts (NVLink racks join several)."""
    processors = list(root.descendants("cpu"))
    hosts = dict.fromkeys(cpu.get("host_hash") for cpu in processors)
    first = next(iter(hosts), None)
    return [cpu for cpu in processors if cpu.get("host_hash") == first], len(hosts)


def _slots(processors: list[Element]) -> tuple[list[_Slot], list[_Slot]]:
    gpus: list[_Slot] = []
    nics: list[_Slot] = []
    for number, cpu in enumerate(processors):
        numa = cpu.number("numaid")
        numa = numa if numa is not None and 0 <= numa < 10_000 else None
        cpus = format_cpu_list(_affinity(cpu.get("affinity") or "")) or None
        # Walked with a stack: a path to each element, from its processor down.
        stack: list[tuple[Element, tuple[str, ...]]] = [(cpu, (f"cpu{number}",))]
        while stack:
            element, path = stack.pop()
            for position, child in reversed(list(enumerate(element.children))):
                bus_id = normal_bus_id(child.get("busid"))
                here = (*path, bus_id or child.get("busid") or f"{child.tag}{position}")
                if child.tag in {"pci", "nic"}:
                    stack.append((child, here))
            slot = _Slot(
                element=element, path=path, numa=numa, cpus=cpus, bus_id=normal_bus_id(element.get("busid"))
            )
            kind = (element.get("class") or "").lower()
            nets = [child for child in element.children if child.tag == "net"]
            if element.tag == "pci" and _is_gpu(element, kind):
                gpus.append(slot)
            elif nets:
                # A nic element adds a level of its own below its PCI function.
                place = path[:-1] if element.tag == "nic" and len(path) > 2 else path
                nics += [
                    _Slot(element=net, path=place, numa=numa, cpus=cpus, bus_id=_bus_above(net))
                    for net in nets
                ]
            elif kind.startswith(NIC_CLASS) and not any(element.descendants("net")):
                nics.append(slot)
    ports = {nic.element.get("name") for nic in nics}
    return gpus, [nic for nic in nics if not _is_merged(nic.element, ports)]


def _is_gpu(element: Element, kind: str) -> bool:
    """Tell a GPU that computes from the display chip of a board's management controller."""
    if _child(element, "gpu"):
        return True
    vendor = (element.get("vendor") or "").lower().removeprefix("0x")
    return kind.startswith(GPU_CLASSES) and (not vendor or vendor in GPU_VENDORS)


def _is_merged(net: Element, ports: set[str | None]) -> bool:
    """Tell a device that NCCL made of ports which are listed too, as mlx5_0+mlx5_1 of mlx5_0 and mlx5_1."""
    parts = (net.get("name") or "").split("+")
    return len(parts) > 1 and ports.issuperset(parts)


def _affinity(mask: str) -> tuple[int, ...]:
    """Return the processors of a mask of comma-separated 32-bit words, the highest first."""
    cpus: list[int] = []
    words = mask.split(",") if re.fullmatch(r"[0-9a-fA-F,]{1,2000}", mask) else []
    for place, word in enumerate(reversed(words)):
        bits = int(word or "0", 16)
        cpus += [32 * place + bit for bit in range(min(bits.bit_length(), 32)) if bits >> bit & 1]
    return tuple(cpus)


def _child(element: Element, tag: str) -> Element | None:
    return next((child for child in element.children if child.tag == tag), None)


def _bus_above(net: Element) -> str | None:
    return next((found for above in net.ancestors() if (found := normal_bus_id(above.get("busid")))), None)


def _number(gpus: list[_Slot]) -> None:
    """Number the GPUs as the file does (gpu dev=…), else by their bus ids, as the driver does."""
    told = [gpu and gpu.number("dev") for gpu in (_child(slot.element, "gpu") for slot in gpus)]
    if None not in told and len(set(told)) == len(told):
        gpus.sort(key=lambda slot: (_child(slot.element, "gpu") or slot.element).number("dev") or 0)
    else:
        gpus.sort(key=lambda slot: slot.bus_id or "~")
    for index, gpu in enumerate(gpus):
        gpu.index = index


def _device(slot: _Slot, links: GpuLinks, fabric: str | None) -> NodeDevice:
    element, gpu = slot.element, _child(slot.element, "gpu")
    vendor, device = (element.get("vendor") or "").lower(), (element.get("device") or "").lower()
    pci_id = f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}" if vendor and device else None
    sm = gpu.number("sm") if gpu else None
    width = element.number("link_width")
    amd = vendor.removeprefix("0x") == AMD or bool(links.xgmi)
    return NodeDevice(
        index=slot.index,
        vendor="amd" if amd else "nvidia",
        name=name_of_pci_id(pci_id),
        bus_id=slot.bus_id,
        pci_id=pci_id,
        compute_capability=f"{sm // 10}.{sm % 10}" if sm and 30 <= sm < 200 else None,
        pcie_bytes_per_second=link_bytes_per_second(generation_of(element.get("link_speed")), width),
        numa_node=slot.numa,
        cpus=slot.cpus,
        links=links.nvlinks or links.xgmi.total() or None,
        link_bytes_per_second=LINK_RATE.get(sm or 0, 25e9) if links.nvlinks else None,
        host_links=links.to_host or None,
        fabric=fabric,
    )


def _nic(slot: _Slot, index: int) -> NodeNic:
    element = slot.element
    speed = element.number("speed") if element.tag == "net" else None
    name = element.get("name") if element.tag == "net" else None
    gdr = element.get("gdr") if element.tag == "net" else None
    card = next((a for a in (element, *element.ancestors()) if a.tag == "pci"), element)
    return NodeNic(
        name=name or f"nic{index}",
        kind=_kind(name or "", card),
        bytes_per_second=speed * 1e6 / 8 if speed and 0 < speed < 10**8 else None,
        bus_id=slot.bus_id,
        numa_node=slot.numa,
        gpu_direct=gdr == "1" if gdr else None,
    )


def _kind(name: str, card: Element) -> NicKind:
    vendor = (card.get("vendor") or "").lower().removeprefix("0x")
    kind = (card.get("class") or "").lower()
    if vendor == AMAZON:
        return "efa"
    if kind.startswith("0x0207"):
        return "infiniband"
    told = kind_of_nic(name)
    return "roce" if told == "unknown" and name.startswith("mlx") else told
