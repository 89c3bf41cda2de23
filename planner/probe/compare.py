"""Two clusters side by side, and many nodes against the majority: what differs, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from planner.probe.links import nearest_nics
from planner.probe.sentence import describe_node
from profiles.cluster import ClusterSpec
from profiles.topology import NodeTopology
from profiles.units import format_bytes

Facts = dict[str, str]


def facts(cluster: ClusterSpec) -> Facts:
    """Return what makes a node what it is, by name, as text that can be compared and shown."""
    device = cluster.device
    found: Facts = {
        "devices": str(cluster.devices_per_node),
        "device": device.name,
        "device memory": format_bytes(device.memory_bytes),
        "cores": str(cluster.cores_per_node or "?"),
    }
    if device.power_watts:
        found["power limit"] = f"{device.power_watts:.0f} W"
    if device.multiprocessors:
        found["multiprocessors"] = str(device.multiprocessors)
    for link in cluster.links:
        found[f"link {link.name}"] = (
            f"{link.bytes_per_second / 1e9:.4g} GB/s, {link.shared_by:g} device(s) a port"
            + (f", span {link.span}" if link.span else "")
        )
    if cluster.topology:
        found |= _node_facts(cluster.topology.node)
    return found


def _node_facts(node: NodeTopology) -> Facts:
    found: Facts = {
        "processor": node.cpu_model or "?",
        "host memory": _rounded(node.memory_bytes),
        "NUMA nodes": str(node.numa_nodes or "?"),
        "driver": node.driver or "none",
        "NIC ports": str(len(node.nics)),
        "problems": "; ".join(sorted(p.message for p in node.problems)) or "none",
        "NVLink domain": " ".join(sorted({d.fabric for d in node.devices if d.fabric})) or "none",
    }
    if node.devices:
        found["summary"] = describe_node(node)
        found["rails"] = _rails(node)
        for a, b in combinations(range(len(node.devices)), 2):
            found[f"GPU{a}–GPU{b}"] = node.relation(a, b)
    for device in node.devices:
        if device.complaints:
            found[f"GPU{device.index}"] = "; ".join(device.complaints)
    for nic in node.nics:
        rate = f"{nic.bytes_per_second * 8 / 1e9:g} Gb/s" if nic.bytes_per_second else "rate unknown"
        found[f"NIC {nic.name}"] = f"{nic.kind}, {rate}, {nic.state}"
    return found


def _rails(node: NodeTopology) -> str:
    """Return which NIC is nearest to each device: `GPU0 mlx5_0, GPU1 mlx5_1`."""
    near = enumerate(nearest_nics(node))
    return ", ".join(f"GPU{i} {node.nics[nic[0]].name}" for i, nic in near if nic) or "none"


def _rounded(count: int | None) -> str:
    """Return a size to the GiB: kernels of equal machines keep slightly different amounts for themselves."""
    return f"{count / (1 << 30):.0f} GiB" if count else "?"


def difference(first: ClusterSpec, second: ClusterSpec) -> list[str]:
    """Return what differs between two clusters, one line each: `NAME: first → second`.

    Pairs of devices that differ alike share a line.
    """
    a = facts(first) | {"nodes": str(first.nodes)}
    b = facts(second) | {"nodes": str(second.nodes)}
    names: dict[str, list[str]] = {}
    for name in [*a, *(n for n in b if n not in a)]:
        if a.get(name) != b.get(name):
            change = f"{a.get(name, 'absent')} → {b.get(name, 'absent')}"
            names.setdefault(f"pairs: {change}" if _is_pair(name) else name, [change]).append(name)
    return [
        f"{found[0]}{f' and {len(found) - 1} pairs more' if len(found) > 1 else ''}: {change}"
        for change, *found in names.values()
    ]


# What may differ between good nodes.
PRIVATE = frozenset({"NVLink domain", "summary"})


def odd_nodes(clusters: Mapping[str, ClusterSpec]) -> dict[str, list[str]]:
    """Return of every node that differs from the majority what differs; nodes like the others are left out.

    The majority is taken fact by fact; of equally frequent values the one seen first counts.
    """
    by_host = {host: facts(cluster) for host, cluster in clusters.items()}
    names = list(dict.fromkeys(name for found in by_host.values() for name in found if name not in PRIVATE))
    odd: dict[str, list[str]] = {}
    for name in names:
        values = [found.get(name, "absent") for found in by_host.values()]
        usual = Counter(values).most_common(1)[0][0]
        for host, found in by_host.items():
            value = found.get(name, "absent")
            if value != usual:
                odd.setdefault(host, []).append(f"{name}: {value} (others: {usual})")
    return {host: _shortened(found) for host, found in odd.items()}


def _is_pair(text: str) -> bool:
    return text.startswith("GPU") and "–" in text


def _shortened(found: list[str]) -> list[str]:
    """Return the differences with those of device pairs summed up: a dead link shows in many."""
    pairs = [text for text in found if _is_pair(text)]
    if len(pairs) < 3:
        return found
    more = f"{pairs[0]} and {len(pairs) - 1} pairs more"
    return [text for text in found if text not in pairs] + [more]
