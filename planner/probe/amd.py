"""AMD devices, from the KFD topology in sysfs; no library is needed.

Each KFD node is a processor or a GPU; `io_links` name the neighbour, the type (11 is xGMI, 2 PCIe) and the
bandwidth in MB/s. Field meanings: Linux `drivers/gpu/drm/amd/amdkfd` and its sysfs description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.probe.accelerators import Accelerators
from planner.probe.files import Files
from planner.probe.identify import name_of_pci_id
from planner.probe.order import xgmi_cell
from planner.probe.pci import (
    AMD,
    PCI_DEVICES,
    PciDevice,
    generation_of,
    link_bytes_per_second,
    list_devices,
    read_device,
)
from profiles.topology import NodeDevice, Problem

KFD_NODES = "/sys/class/kfd/kfd/topology/nodes"
XGMI_LINK, XGMI_WEIGHT = 11, 15  # the weight is of one link: a path over two has 30
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class _Xgmi:
    """A path over xGMI: its hops, and, when there is but one, the links and the bandwidth of all of them."""

    hops: int = 1
    links: int = 1
    bytes_per_second: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Node:
    """One GPU node of the KFD tree: its properties, and the xGMI paths to other nodes by number."""

    number: int
    properties: dict[str, int]
    xgmi: dict[int, _Xgmi]


def read_amd(files: Files) -> Accelerators:
    """Return the AMD devices of this machine."""
    nodes = _gpu_nodes(files)
    if not nodes:
        bus = [d for d in list_devices(files) if d.vendor == AMD and d.device_class[:4] in {"0380", "1200"}]
        if not bus:
            return Accelerators(notes=("KFD: no AMD device",))
        problem = Problem(
            name="amd-driver-not-loaded",
            message=f"{len(bus)} AMD device(s) are on the PCI bus, but {KFD_NODES} shows none",
            remedy="load the driver (modprobe amdgpu) and look at dmesg",
        )
        return Accelerators(problems=(problem,))
    places = {index: _place(files, node) for index, node in enumerate(nodes)}
    devices = tuple(_device(files, index, node, places[index]) for index, node in enumerate(nodes))
    relations = {
        (a, b): xgmi_cell(links=path.links, hops=path.hops)
        for a, first in enumerate(nodes)
        for b, second in enumerate(nodes)
        if a != b and (path := first.xgmi.get(second.number) or second.xgmi.get(first.number))
    }
    return Accelerators(
        devices=devices,
        relations=relations,
        places={index: place for index, place in places.items() if place},
        nvswitches=0,
        driver=files.text("/sys/module/amdgpu/version"),
        notes=_partition_notes(files, devices),
        origins={"devices": "KFD sysfs", "matrix": "KFD sysfs: io_links, PCI tree"},
    )


def _gpu_nodes(files: Files) -> list[_Node]:
    found = []
    for name in sorted(files.names(KFD_NODES), key=lambda n: int(n) if n.isdecimal() else -1):
        properties = _properties(files.text(f"{KFD_NODES}/{name}/properties"))
        if (
            not name.isdecimal()
            or not properties.get("simd_count")
            or files.text(f"{KFD_NODES}/{name}/gpu_id") == "0"
        ):
            continue
        xgmi: dict[int, _Xgmi] = {}
        for folder in ("io_links", "p2p_links"):
            for link in files.names(f"{KFD_NODES}/{name}/{folder}"):
                entry = _properties(files.text(f"{KFD_NODES}/{name}/{folder}/{link}/properties"))
                if entry.get("type") == XGMI_LINK and "node_to" in entry:
                    xgmi[entry["node_to"]] = _xgmi(entry)
        found.append(_Node(number=int(name), properties=properties, xgmi=xgmi))
    gpus = {node.number for node in found}
    return [
        _Node(number=n.number, properties=n.properties, xgmi={k: v for k, v in n.xgmi.items() if k in gpus})
        for n in found
    ]


def _xgmi(entry: dict[str, int]) -> _Xgmi:
    """Return a path: its weight tells the hops, its least bandwidth, that of one link, the links."""
    most, least = entry.get("max_bandwidth", 0), entry.get("min_bandwidth", 0)
    links = most // least if 0 < least <= most else 1
    return _Xgmi(
        hops=max(1, entry.get("weight", 0) // XGMI_WEIGHT), links=links, bytes_per_second=most * MEGABYTE
    )


def _properties(text: str | None) -> dict[str, int]:
    """Return `name number` lines as a dictionary; other lines are left out."""
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d{1,20})$", text or "", re.M)}


def _place(files: Files, node: _Node) -> PciDevice | None:
    location = node.properties.get("location_id", 0)
    domain = node.properties.get("domain", 0)
    bus_id = f"{domain:04x}:{(location >> 8) & 0xFF:02x}:{(location >> 3) & 0x1F:02x}.{location & 7}"
    # The slices of a partitioned device count their functions on, but sit at function 0.
    return read_device(files, bus_id) or read_device(files, bus_id[:-1] + "0")


def _device(files: Files, index: int, node: _Node, place: PciDevice | None) -> NodeDevice:
    properties = node.properties
    pci_id = f"{properties.get('vendor_id', 0):04x}:{properties.get('device_id', 0):04x}"
    base = f"{PCI_DEVICES}/{place.bus_id}" if place else ""
    total = (files.text(f"{base}/mem_info_vram_total") or "") if base else ""
    banks = f"{KFD_NODES}/{node.number}/mem_banks"
    bank = sum(
        _properties(files.text(f"{banks}/{name}/properties")).get("size_in_bytes", 0)
        for name in files.names(banks)
    )
    compute_units = properties.get("simd_count", 0) // (properties.get("simd_per_cu", 0) or 4)
    clock = properties.get("max_engine_clk_fcompute", 0) * 1e6
    direct = [path for path in node.xgmi.values() if path.hops == 1]
    rates = [path.bytes_per_second / path.links for path in direct if path.bytes_per_second]
    width = (files.text(f"{base}/current_link_width") or "") if base else ""
    return NodeDevice(
        index=index,
        vendor="amd",
        name=(files.text(f"{base}/product_name") if base else None) or name_of_pci_id(pci_id),
        uuid=f"{properties['unique_id']:x}" if properties.get("unique_id") else None,
        bus_id=place.bus_id if place else None,
        pci_id=pci_id if properties.get("device_id") else None,
        memory_bytes=bank or (int(total) if re.fullmatch(r"[1-9]\d{0,15}", total) else None),
        multiprocessors=compute_units or None,
        clock_hertz=clock or None,
        pcie_bytes_per_second=link_bytes_per_second(
            generation_of(files.text(f"{base}/current_link_speed")) if base else None,
            int(width) if re.fullmatch(r"\d{1,2}", width) else None,
        ),
        numa_node=place.numa_node if place else None,
        cpus=place.cpus if place else None,
        links=sum(path.links for path in direct),
        link_bytes_per_second=min(rates) if rates else None,
    )


def _partition_notes(files: Files, devices: tuple[NodeDevice, ...]) -> tuple[str, ...]:
    """Return a note when devices are split (MI300 modes but SPX), which changes their count and size."""
    modes = {
        files.text(f"{PCI_DEVICES}/{device.bus_id}/current_compute_partition")
        for device in devices
        if device.bus_id
    } - {None, "SPX"}
    if not modes:
        return ()
    return (
        f"compute partition mode {', '.join(sorted(str(m) for m in modes))}: each device is a part of one",
    )
