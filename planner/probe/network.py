"""NICs from sysfs: InfiniBand, RoCE, EFA, and plain Ethernet where there is nothing better."""

from __future__ import annotations

import re

from planner.probe.files import Files
from planner.probe.pci import AMAZON, PciDevice, normal_bus_id, pci_path, read_device
from profiles.topology import NicKind, NicState, NodeNic

INFINIBAND = "/sys/class/infiniband"
NET = "/sys/class/net"


def read_nics(files: Files) -> tuple[tuple[NodeNic, ...], dict[str, PciDevice], tuple[str, ...]]:
    """Return the RDMA ports, else Ethernet ports; the PCI device of each by name; and notes.

    Virtual functions are left out. A port that is not up stays in, with its state.
    """
    nics: list[NodeNic] = []
    places: dict[str, PciDevice] = {}
    virtual = 0
    for name in files.names(INFINIBAND):
        if files.target(f"{INFINIBAND}/{name}/device/physfn") is not None:
            virtual += 1
            continue
        place = _place(files, f"{INFINIBAND}/{name}/device")
        ports = files.names(f"{INFINIBAND}/{name}/ports")
        for port in ports:
            nic = _port(files, name, port, place, several=len(ports) > 1)
            nics.append(nic)
            if place:
                places[nic.name] = place
    notes = [f"{virtual} virtual function(s) of RDMA NICs left out"] if virtual else []
    if not nics:
        nics, places = _ethernet(files)
        notes.append("no RDMA NIC in /sys/class/infiniband" + ("; Ethernet is used" if nics else ""))
    return tuple(nics), places, tuple(notes)


def _place(files: Files, link: str) -> PciDevice | None:
    # The function may sit above the named device: virtio, for one, adds a level of its own.
    path = pci_path(files.target(link) or "")
    bus_id = normal_bus_id(path[-1]) if path else None
    return read_device(files, bus_id) if bus_id else None


def _port(files: Files, name: str, port: str, place: PciDevice | None, *, several: bool) -> NodeNic:
    base = f"{INFINIBAND}/{name}/ports/{port}"
    layer = (files.text(f"{base}/link_layer") or "").lower()
    vendor = (files.text(f"{INFINIBAND}/{name}/device/vendor") or "").removeprefix("0x").lower()
    driver = (files.target(f"{INFINIBAND}/{name}/device/driver") or "").rsplit("/", 1)[-1]
    kind: NicKind = "unknown"
    if layer == "infiniband":
        kind = "infiniband"
    elif layer == "ethernet":
        kind = "roce"
    elif vendor == AMAZON or driver == "efa":
        kind = "efa"  # its link layer reads Unknown or Unspecified
    return NodeNic(
        name=f"{name}:{port}" if several else name,
        kind=kind,
        state=_state(files.text(f"{base}/state")),
        bytes_per_second=parse_rate(files.text(f"{base}/rate")),
        bus_id=place.bus_id if place else None,
        numa_node=place.numa_node if place else None,
    )


def _state(text: str | None) -> NicState:
    """Return the state of a port from text like `4: ACTIVE`."""
    if not text:
        return "unknown"
    return "active" if "ACTIVE" in text.upper() else "down"


def parse_rate(text: str | None) -> float | None:
    """Return bytes per second of text like `400 Gb/sec (4X NDR)`; None for zero or another form."""
    match = re.match(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*Gb/sec", text or "")
    return float(match.group(1)) * 1e9 / 8 or None if match else None


def _ethernet(files: Files) -> tuple[list[NodeNic], dict[str, PciDevice]]:
    """Return the Ethernet ports that have hardware behind them and are up."""
    nics: list[NodeNic] = []
    places: dict[str, PciDevice] = {}
    for name in files.names(NET):
        if files.target(f"{NET}/{name}/device") is None or files.text(f"{NET}/{name}/operstate") != "up":
            continue
        speed = files.text(f"{NET}/{name}/speed") or ""
        place = _place(files, f"{NET}/{name}/device")
        nics.append(
            NodeNic(
                name=name,
                kind="ethernet",
                state="active",
                bytes_per_second=int(speed) * 1e6 / 8 if re.fullmatch(r"[1-9]\d{0,6}", speed) else None,
                bus_id=place.bus_id if place else None,
                numa_node=place.numa_node if place else None,
                gpu_direct=False,
            )
        )
        if place:
            places[name] = place
    return nics, places
