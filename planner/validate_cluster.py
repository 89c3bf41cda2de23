"""The cluster a published record describes, from presets and what the record states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.validate_case import stated_count
from profiles.cluster import ClusterSpec, DeviceSpec, LinkKind, LinkSpec
from profiles.errors import ConfigError
from profiles.presets import device_preset

# Words of a record's device name → preset; the first row whose words all occur is taken.
DEVICES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gb300",), "gb300"),
    (("gb200",), "gb200"),
    (("b300",), "b300"),
    (("b200",), "b200"),
    (("gh200",), "gh200"),
    (("h200",), "h200-sxm-141gb"),
    (("h100", "96gb"), "h100-sxm5-96gb-500w"),
    (("h100", "500 w"), "h100-sxm5-96gb-500w"),
    (("h100", "pcie"), "h100-pcie-80gb"),
    (("h100",), "h100-sxm5-80gb"),
    (("h800",), "h800-sxm5-80gb"),
    (("h20",), "h20-sxm-96gb"),
    (("a800",), "a800-sxm4-80gb"),
    (("a100", "pcie"), "a100-pcie-80gb"),
    (("a100", "40gb"), "a100-sxm4-40gb"),
    (("a100",), "a100-sxm4-80gb"),
    (("v100", "16gb"), "v100-sxm2-16gb"),
    (("v100",), "v100-sxm2-32gb"),
    (("p100",), "p100-sxm2-16gb"),
    (("mi355x",), "mi355x"),
    (("mi325x",), "mi325x"),
    (("mi300x",), "mi300x"),
    (("mi250",), "mi250x"),
    (("l40s",), "l40s"),
    (("l40",), "l40"),
    (("l4",), "l4"),
    (("4090",), "rtx4090"),
    (("3090",), "rtx3090"),
    (("titan", "rtx"), "titanrtx"),
    (("2080", "ti"), "rtx2080-ti-11gb"),
    (("a6000",), "rtxa6000"),
    (("a40",), "a40"),
    (("a10g",), "a10g"),
    (("a10",), "a10"),
    (("t4",), "t4"),
)

# Links of a device family inside a node: kind, bytes per second and direction, seconds, devices they span.
Inner = tuple[LinkKind, float, float, int]
PCIE_3: Inner = ("pcie", 15.75e9, 1e-5, 8)
PCIE_4: Inner = ("pcie", 31e9, 8e-6, 8)
PCIE_5: Inner = ("pcie", 63e9, 8e-6, 8)
NVSWITCH_3: Inner = ("nvswitch", 300e9, 4e-6, 8)
NVSWITCH_4: Inner = ("nvswitch", 450e9, 3e-6, 8)
INNER: dict[str, Inner] = {
    "gb200": ("nvswitch", 900e9, 3e-6, 72),
    "gb300": ("nvswitch", 900e9, 3e-6, 72),
    "b200": ("nvswitch", 900e9, 3e-6, 8),
    "b300": ("nvswitch", 900e9, 3e-6, 8),
    "gh200": ("nvswitch", 450e9, 3e-6, 4),
    "h100": NVSWITCH_4,
    "h200": NVSWITCH_4,
    "h20": NVSWITCH_4,
    "h800": ("nvswitch", 200e9, 3e-6, 8),
    "a100": NVSWITCH_3,
    "a800": ("nvswitch", 200e9, 4e-6, 8),
    "v100": ("nvlink", 150e9, 4e-6, 8),
    "p100": ("nvlink", 80e9, 4e-6, 8),
    "mi300x": ("xgmi", 448e9, 4e-6, 8),
    "mi325x": ("xgmi", 448e9, 4e-6, 8),
    "mi355x": ("xgmi", 538e9, 4e-6, 8),
    "mi250x": ("xgmi", 150e9, 4e-6, 8),
    "t4": PCIE_3,
    "titanrtx": PCIE_3,
    "rtx2080": PCIE_3,
}  # all others are boards in PCIe 4.0 slots

# Network of a node where the record does not state it: devices per port and bytes per second of a port.
NETWORKS: dict[str, tuple[float, float]] = {
    "v100": (2.0, 12.5e9),
    "p100": (2.0, 12.5e9),
    "a100": (2.0, 25e9),
    "a800": (2.0, 25e9),
}
RECENT_NETWORK = (1.0, 50e9)
BOARDS_NETWORK = (8.0, 12.5e9)  # of nodes whose devices have PCIe alone


def device_of(text: str, memory_gb: float | None, assumed: list[str]) -> DeviceSpec:
    """Return the device preset that a record's text names.

    Raises:
        ConfigError: when no preset is known for it.
    """
    words = text.lower()
    if memory_gb == 40 and "a100" in words:
        words += " 40gb"
    if memory_gb == 16 and "v100" in words:
        words += " 16gb"
    for needed, name in DEVICES:
        if all(re.search(rf"{word}(?!\d)", words) for word in needed):
            if memory_gb is None and "gb" not in words:
                assumed.append(f"device {name}")
            return device_preset(name)
    raise ConfigError(f"no device preset for '{text}'")


def cluster_of(data: Mapping[str, Any], devices: int, assumed: list[str]) -> ClusterSpec:
    """Return the cluster of a record: preset device, inner link of its family, ports as stated.

    Raises:
        ConfigError: when the device is not stated or unknown.
        SkippedError: when the devices of a node are no whole number.
    """
    if not data.get("gpu"):
        raise ConfigError("the device is not stated")
    memory = data.get("gpu_mem_gb")
    device = device_of(
        str(data.get("gpu") or ""), float(memory) if isinstance(memory, int | float) else None, assumed
    )
    stated = stated_count(data, "gpus_per_node")
    if stated is None and devices > 1:
        assumed.append("8 devices a node")
    per_node = min(stated or 8, devices)
    nodes = -(-devices // per_node)
    inner = _inner(device, per_node, str(data.get("intra_node") or ""))
    links = [inner]
    if nodes > 1 and (inner.span or 0) < devices:
        links.append(_outer(device, data, per_node, assumed))
    else:
        links[0] = inner.model_copy(update={"span": None})
    return ClusterSpec(
        name=f"{nodes} nodes of {device.name}",
        device=device,
        devices_per_node=per_node,
        nodes=nodes,
        links=tuple(links),
    )


def _family(device: DeviceSpec) -> str:
    return device.name.split("-")[0]


def _inner(device: DeviceSpec, per_node: int, text: str) -> LinkSpec:
    words = text.lower()
    found = INNER.get(_family(device), PCIE_4)
    if "pcie" in device.name:
        found = PCIE_5 if device.name.startswith("h") else PCIE_4
    if "nvlink" in words and found[0] == "pcie":
        found = NVSWITCH_3  # bridged boards
    if "pcie" in words and "nvlink" not in words and found[0] != "pcie":
        found = PCIE_4  # boards without links
    kind, rate, latency, span = found
    wide = max(span if span > 8 else per_node, 1)
    return LinkSpec(
        name=kind,
        kind=kind,
        span=wide,
        bytes_per_second=rate,
        latency_seconds=latency,
        source="data sheet of the device",
    )


def _network(device: DeviceSpec) -> tuple[float, float]:
    """Return how many devices share a port, and a port's bytes per second, as usual for a device."""
    family = _family(device)
    if family in NETWORKS or INNER.get(family, PCIE_4)[0] != "pcie":
        return NETWORKS.get(family, RECENT_NETWORK)
    return BOARDS_NETWORK


def _outer(device: DeviceSpec, data: Mapping[str, Any], per_node: int, assumed: list[str]) -> LinkSpec:
    ports, gigabits = data.get("nics_per_node"), data.get("nic_gbps")
    words = str(data.get("network") or "").lower()
    kind: LinkKind = "infiniband"
    if "tcp" in words or "ethernet" in words:
        kind = "ethernet"
    elif "efa" in words:
        kind = "efa"
    elif "roce" in words:
        kind = "roce"
    if ports and gigabits:
        rate, shared, source = float(gigabits) / 8 * 1e9, per_node / float(ports), "stated by the record"
    else:
        shared, rate = _network(device)
        source = "assumed for the device family"
        assumed.append(f"one {rate * 8 / 1e9:.0f} Gb/s port to {shared:.0f} device(s)")
    return LinkSpec(
        name=kind,
        kind=kind,
        bytes_per_second=rate,
        shared_by=shared,
        source=source,
        latency_seconds=2.5e-5 if kind in {"efa", "ethernet"} else 1e-5,
    )
