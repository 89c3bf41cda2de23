"""The cluster a published record describes, from presets and what the record states."""

from __future__ import annotations

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
    (("h800",), "h100-sxm5-80gb"),
    (("a800",), "a800-sxm4-80gb"),
    (("a100", "pcie"), "a100-pcie-80gb"),
    (("a100", "40gb"), "a100-sxm4-40gb"),
    (("a100",), "a100-sxm4-80gb"),
    (("v100", "16gb"), "v100-sxm2-16gb"),
    (("v100",), "v100-sxm2-32gb"),
    (("mi300x",), "mi300x"),
    (("mi250",), "mi250x"),
    (("l40s",), "l40s"),
    (("4090",), "rtx4090"),
)

# Inner link of a device family: kind, bytes per second and direction, seconds, devices it spans.
INNER: tuple[tuple[str, LinkKind, float, float, int], ...] = (
    ("gb", "nvswitch", 900e9, 3e-6, 72),
    ("b", "nvswitch", 900e9, 3e-6, 8),
    ("a100-pcie", "pcie", 31e9, 8e-6, 8),
    ("h100-pcie", "pcie", 63e9, 8e-6, 8),
    ("gh200", "nvswitch", 450e9, 3e-6, 4),
    ("h", "nvswitch", 450e9, 3e-6, 8),
    ("a800", "nvswitch", 200e9, 4e-6, 8),
    ("a", "nvswitch", 300e9, 4e-6, 8),
    ("v", "nvlink", 150e9, 4e-6, 8),
    ("mi300x", "xgmi", 448e9, 4e-6, 8),
    ("mi250x", "xgmi", 150e9, 4e-6, 8),
    ("l40s", "pcie", 31e9, 8e-6, 8),
    ("rtx", "pcie", 31e9, 8e-6, 8),
)

# Network of a node where the record does not state it: devices per port and bytes per second of a port.
NETWORKS: tuple[tuple[str, float, float], ...] = (
    ("v", 2.0, 12.5e9),
    ("a", 2.0, 25e9),
    ("h", 1.0, 50e9),
    ("gh", 1.0, 50e9),
    ("", 1.0, 50e9),
)


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
        if all(word in words for word in needed):
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


def _inner(device: DeviceSpec, per_node: int, text: str) -> LinkSpec:
    words = text.lower()
    for prefix, kind, rate, latency, span in INNER:
        if device.name.startswith(prefix):
            if "nvlink" in words and kind == "pcie":
                kind, rate, latency = "nvswitch", 300e9, 4e-6  # noqa: PLW2901 (bridged boards)
            if "pcie" in words and "nvlink" not in words and kind != "pcie":
                kind, rate, latency = "pcie", 31e9, 8e-6  # noqa: PLW2901 (boards without links)
            wide = max(span if span > 8 else per_node, 1)
            return LinkSpec(
                name=kind, kind=kind, span=wide, bytes_per_second=rate, latency_seconds=latency,
                source="data sheet of the device",
            )  # fmt: skip
    raise ConfigError(f"no inner link known for {device.name}")


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
        _, shared, rate = next(row for row in NETWORKS if device.name.startswith(row[0]))
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
