"""The PCI tree in sysfs: how far two devices are apart, and which devices there are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.probe.files import Files

PCI_DEVICES = "/sys/bus/pci/devices"
NVIDIA, AMD, AMAZON = "10de", "1002", "1d0f"
LANE_BYTES_PER_SECOND = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
GENERATION_OF_TRANSFERS = {"2.5": 1, "5": 2, "5.0": 2, "8": 3, "8.0": 3, "16": 4, "16.0": 4, "32": 5}
GENERATION_OF_TRANSFERS |= {"32.0": 5, "64": 6, "64.0": 6}

# Relations from near to far, as `nvidia-smi topo -m` names them.
NEAR_TO_FAR = ("PIX", "PXB", "PHB", "NODE", "SYS")
ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}

_BUS_ID = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_COMPONENT = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


@dataclass(frozen=True, kw_only=True)
class PciDevice:
    """One entry of the PCI bus; `path` leads from the root complex down to the device."""

    bus_id: str
    vendor: str
    device: str
    device_class: str
    path: tuple[str, ...]
    numa_node: int | None
    cpus: str | None


def normal_bus_id(text: str | None) -> str | None:
    """Return a bus id as sysfs writes it (`0000:3b:00.0`), whatever the case and width of its domain."""
    match = _BUS_ID.fullmatch((text or "").strip())
    if not match:
        return None
    domain, bus, device, function = match.groups(default="0")
    return f"{int(domain, 16):04x}:{bus}:{device}.{function}".lower()


def read_device(files: Files, bus_id: str) -> PciDevice | None:
    """Return one PCI device, or None when sysfs does not show it."""
    base = f"{PCI_DEVICES}/{bus_id}"
    target = files.target(base)
    if target is None:
        return None
    numa = files.text(f"{base}/numa_node") or ""
    return PciDevice(
        bus_id=bus_id,
        vendor=(files.text(f"{base}/vendor") or "").removeprefix("0x").lower(),
        device=(files.text(f"{base}/device") or "").removeprefix("0x").lower(),
        device_class=(files.text(f"{base}/class") or "").removeprefix("0x").lower(),
        path=pci_path(target),
        numa_node=int(numa) if re.fullmatch(r"\d{1,4}", numa) else None,
        cpus=files.text(f"{base}/local_cpulist") or None,
    )


def pci_path(target: str) -> tuple[str, ...]:
    """Return the root complex, the bridges and the device of a resolved sysfs path."""
    parts = target.split("/")
    start = next(
        (i for i, part in enumerate(parts) if re.fullmatch(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}", part)), None
    )
    if start is None:
        return tuple(part for part in parts if _COMPONENT.fullmatch(part))
    return (parts[start], *(part for part in parts[start + 1 :] if _COMPONENT.fullmatch(part)))


def list_devices(files: Files) -> tuple[PciDevice, ...]:
    """Return every accelerator and NVSwitch on the PCI bus.

    Only vendor and class are read of the others, to keep the probe quick on hosts with many devices.
    """
    found = []
    for name in files.names(PCI_DEVICES):
        vendor = (files.text(f"{PCI_DEVICES}/{name}/vendor") or "").removeprefix("0x").lower()
        if vendor in {NVIDIA, AMD} and (device := read_device(files, name)):
            found.append(device)
    return tuple(found)


def is_display(device: PciDevice) -> bool:
    """Tell whether a device is a GPU: a VGA, 3D or processing accelerator function."""
    return device.device_class[:4] in {"0300", "0302", "0380", "1200"}


def is_nvswitch(device: PciDevice) -> bool:
    """Tell whether a device is an NVSwitch, which is a bridge of NVIDIA's that is not a PCI bridge."""
    return device.vendor == NVIDIA and device.device_class[:4] == "0680"


def distance(
    first: tuple[str, ...],
    second: tuple[str, ...],
    *,
    numa: tuple[int | None, int | None] = (None, None),
    numa_nodes: int | None = None,
    switch_levels: int = 2,
) -> str:
    """Return how far two devices are apart by their paths from the root complex; `?` without a path.

    Two functions below one bridge, or below two ports of one switch, are PIX; each further level of switches
    makes it PXB; with nothing but the root complex in common it is PHB. `switch_levels` is the number of
    bridges by which a path shows one switch: two in sysfs (the ports up and down), one in NCCL's files.
    """
    if not first or not second:
        return "?"
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    if common >= 2:
        return "PIX" if max(len(first), len(second)) - common <= switch_levels else "PXB"
    if common == 1:
        return "PHB"
    if None not in numa:
        return "NODE" if numa[0] == numa[1] else "SYS"
    return "NODE" if numa_nodes == 1 else "SYS"


def farther(first: str, second: str) -> str:
    """Return the farther of two relations; an unknown one counts as near."""
    rank = {relation: i for i, relation in enumerate(NEAR_TO_FAR)}
    return max(first, second, key=lambda relation: rank.get(relation, -1))


def link_bytes_per_second(generation: int | None, width: int | None) -> float | None:
    """Return the bandwidth of a PCIe link in one direction."""
    if generation not in LANE_BYTES_PER_SECOND or width is None or not 0 < width <= 64:
        return None
    return LANE_BYTES_PER_SECOND[generation] * width


def generation_of(speed: str | None) -> int | None:
    """Return the PCIe generation of a speed as sysfs or NCCL writes it: `16.0 GT/s PCIe` is 4."""
    return GENERATION_OF_TRANSFERS.get((speed or "").split(" ")[0])
