"""Which product a device is: by PCI id, by the driver's name for it; and which preset describes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from profiles.topology import NicKind, NodeDevice

# PCI ids of training devices (the public PCI id database), as the drivers name them.
PCI_NAMES = {
    "10de:15f8": "Tesla P100-PCIE-16GB",
    "10de:15f9": "Tesla P100-SXM2-16GB",
    "10de:1db1": "Tesla V100-SXM2-16GB",
    "10de:1db4": "Tesla V100-PCIE-16GB",
    "10de:1db5": "Tesla V100-SXM2-32GB",
    "10de:1db6": "Tesla V100-PCIE-32GB",
    "10de:1db8": "Tesla V100-SXM3-32GB",
    "10de:1eb8": "Tesla T4",
    "10de:2204": "NVIDIA GeForce RTX 3090",
    "10de:2230": "NVIDIA RTX A6000",
    "10de:2235": "NVIDIA A40",
    "10de:2236": "NVIDIA A10",
    "10de:2684": "NVIDIA GeForce RTX 4090",
    "10de:26b5": "NVIDIA L40",
    "10de:26b9": "NVIDIA L40S",
    "10de:27b8": "NVIDIA L4",
    "10de:20b0": "NVIDIA A100-SXM4-40GB",
    "10de:20b2": "NVIDIA A100-SXM4-80GB",
    "10de:20b5": "NVIDIA A100 80GB PCIe",
    "10de:20b7": "NVIDIA A30",
    "10de:20f1": "NVIDIA A100-PCIE-40GB",
    "10de:20f3": "NVIDIA A800-SXM4-80GB",
    "10de:2321": "NVIDIA H100 NVL",
    "10de:2322": "NVIDIA H800 PCIe",
    "10de:2324": "NVIDIA H800",
    "10de:2329": "NVIDIA H20",
    "10de:2330": "NVIDIA H100 80GB HBM3",
    "10de:2331": "NVIDIA H100 PCIe",
    "10de:2335": "NVIDIA H200",
    "10de:233b": "NVIDIA H200 NVL",
    "10de:2342": "NVIDIA GH200 480GB",
    "10de:2901": "NVIDIA B200",
    "10de:2941": "NVIDIA GB200",
    "10de:3182": "NVIDIA B300 SXM6 AC",
    "10de:31c2": "NVIDIA GB300",
    "10de:31c3": "NVIDIA GB300",
    "1002:738c": "AMD Instinct MI100",
    "1002:7408": "AMD Instinct MI250X",
    "1002:740c": "AMD Instinct MI250X",
    "1002:740f": "AMD Instinct MI210",
    "1002:74a1": "AMD Instinct MI300X",
    "1002:74a5": "AMD Instinct MI325X",
    "1002:75a0": "AMD Instinct MI350X",
    "1002:75a3": "AMD Instinct MI355X",
}
# Machines whose accelerator is part of the processor and therefore on no PCI bus.
INTEGRATED_SYSTEMS = {"NVIDIA_DGX_Spark": "NVIDIA GB10"}

# One NVLink or xGMI link in one direction, in bytes per second, by product (the vendors' data sheets).
# In all others 25 GB/s and 64 GB/s.
NVLINK_RATES = {"P100": 20e9, "RTX 3090": 14.0625e9, "RTX A6000": 14.0625e9, "A40": 14.0625e9}
NVLINK_RATES |= dict.fromkeys(("B200", "B300", "GB200", "GB300"), 50e9)
XGMI_RATES = {"MI100": 46e9, "MI210": 50e9, "MI250": 50e9, "MI250X": 50e9, "MI350X": 76.8e9, "MI355X": 76.8e9}

# How drivers and udev name RDMA devices and network interfaces. Only Ethernet ports can be bonded; mlx5_an is
# a cloud's interface to everything but the other nodes.
NIC_NAMES: tuple[tuple[str, NicKind], ...] = (
    (r"rdmap|efa", "efa"),
    (r"ib|mlx5_ib", "infiniband"),
    (r"mlx5_bond|roce|bnxt_re|ionic|irdma", "roce"),
    (r"eth|en|mlx5_an", "ethernet"),
)

_NOISE = re.compile(r"\b(?:nvidia|amd|tesla|geforce|instinct|graphics|gpu|oam|mig\s.*)\b", re.I)


def name_of_pci_id(pci_id: str | None) -> str | None:
    """Return the driver's name of a product by `vendor:device`, or None."""
    return PCI_NAMES.get((pci_id or "").lower())


def short_name(name: str | None) -> str:
    """Return the name people use: `NVIDIA H100 80GB HBM3` is `H100`; `GPU` when there is none."""
    plain = " ".join(_NOISE.sub(" ", name or "").split())
    match = re.search(r"RTX\s*(?:PRO\s*)?A?\d{4}", plain, re.I)
    if match:
        return match.group(0).upper()
    match = re.search(r"\b(?:GB|GH|MI|A|B|H|V|P|L|T)\d{1,4}[A-Z]{0,2}\b", plain, re.I)
    return match.group(0).upper() if match else plain or "GPU"


def link_rate(name: str | None, *, amd: bool = False) -> float:
    """Return the nominal bytes per second of one NVLink (of AMD: xGMI link) of a product in one direction."""
    family = short_name(name)
    return XGMI_RATES.get(family, 64e9) if amd else NVLINK_RATES.get(family, 25e9)


def kind_of_nic(name: str) -> NicKind:
    """Return what the name of a NIC tells of it; `mlx5_0` alone may be InfiniBand or RoCE."""
    return next((kind for pattern, kind in NIC_NAMES if re.match(pattern, name)), "unknown")


def preset_for(device: NodeDevice, presets: Sequence[tuple[str, int]]) -> str | None:
    """Return the preset that describes a device, or None.

    `presets` are (name, memory in bytes). Product family and form must agree; memory decides between sizes.
    """
    if not device.name:
        return None
    family = short_name(device.name).lower().replace(" ", "")
    form = _form(device.name)
    matching = [(n, size) for n, size in presets if n.split("-")[0] == family and _form(n) in {form, ""}]
    if not matching and form == "":
        matching = [(n, size) for n, size in presets if n.split("-")[0] == family and _form(n) == "sxm"]
    memory = device.memory_bytes if device.slice is None else None
    memory = memory or _memory_in_name(device.name)
    if memory is None:
        return matching[0][0] if matching else None
    near = [(abs(size - memory) / size, n) for n, size in matching if abs(size - memory) <= 0.12 * size]
    return min(near)[1] if near else None


def _form(name: str) -> str:
    """Return the form factor that a product or preset name tells: sxm, pcie, nvl or nothing."""
    lower = name.lower()
    for word, form in (("sxm", "sxm"), ("hbm3", "sxm"), ("pcie", "pcie"), ("nvl", "nvl")):
        if word in lower:
            return form
    return ""


def _memory_in_name(name: str) -> int | None:
    match = re.search(r"(\d{2,3})\s?GB", name, re.I)
    if "GH200" in name:
        return None  # its name tells the memory of the processor
    return int(match.group(1)) << 30 if match else None
