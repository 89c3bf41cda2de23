"""A probed cluster for people: the matrix of relations, a drawing of the node, and the link classes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from planner.probe.links import compute_nics, nearest_nics
from planner.probe.order import is_fast, link_count
from planner.probe.sentence import is_railed
from profiles.cluster import ClusterSpec
from profiles.topology import NodeDevice, NodeNic, NodeTopology
from profiles.units import format_count

WIDEST_MATRIX = 24  # rows; larger ones are left to --json


def matrix_lines(node: NodeTopology) -> list[str]:
    """Return the matrix as text: devices, then NICs (NIC0 is the first), as far as the width allows."""
    names = [f"GPU{d.index}" for d in node.devices] + [f"NIC{i}" for i in range(len(node.nics))]
    if not node.matrix:
        return []
    told = []
    if len(names) > WIDEST_MATRIX:
        names = names[: len(node.devices)]
        told = [f"(the matrix without {len(node.nics)} NICs; --json shows all of it)"]
    if len(names) > WIDEST_MATRIX:
        return [f"(a matrix of {len(names)} devices: see --json)"]
    lines = ["      " + "".join(f"{name:<6}" for name in names).rstrip()]
    lines += [
        f"{name:<6}" + "".join(f"{cell:<6}" for cell in row[: len(names)]).rstrip()
        for name, row in zip(names, node.matrix, strict=False)
    ]
    return lines + told


def node_lines(node: NodeTopology) -> list[str]:
    """Return a drawing of the node: a box for each NUMA node with its devices and their nearest NICs.

    ┌ NUMA 0 ─────────────────────────────
    │ GPU0 ──PIX── mlx5_0 400 Gb/s
    └─────────────────────────────────────
    GPU0–GPU7: 18 NVLinks each to NVSwitch, 450 GB/s
    """
    if not node.devices:
        return []
    nearest = nearest_nics(node)
    own = _more_nics(node)
    lines: list[str] = []
    groups = sorted({d.numa_node for d in node.devices}, key=lambda n: (n is None, n))
    shown: set[str] = set()
    for numa in groups:
        title = "NUMA unknown" if numa is None else f"NUMA {numa}"
        lines.append(f"┌ {title} {'─' * (46 - len(title))}")
        for device in node.devices:
            if device.numa_node == numa:
                near = nearest[device.index]
                nics = [node.nics[near[0]], *own.get(device.index, [])] if near else []
                lines.append("│ " + _device_line(device, nics, near[1] if near else ""))
                shown |= {nic.name for nic in nics}
        rest = [n for n in node.nics if n.numa_node == numa and n.name not in shown]
        shown |= {nic.name for nic in rest}
        lines += [f"│ {'':8}{_nic_text(nic)}" for nic in rest]
        lines.append("└" + "─" * 48)
    lines += [f"  {_nic_text(nic)} (NUMA unknown)" for nic in node.nics if nic.name not in shown]
    return lines + _joints(node) + _rails(node)


def _more_nics(node: NodeTopology) -> dict[int, list[NodeNic]]:
    """Return of every device the NICs behind its PCIe switch, and no other's, that are nobody's nearest."""
    taken = {near[0] for near in nearest_nics(node) if near}
    usable = compute_nics(node)
    found: dict[int, list[NodeNic]] = {}
    for number, nic in enumerate(node.nics):
        row = node.matrix[len(node.devices) + number] if node.matrix else ()
        behind = [device.index for device in node.devices if row and row[device.index] in {"PIX", "PXB"}]
        closest = [device for device in behind if row[device] == "PIX"] or behind
        if number not in taken and nic in usable and len(closest) == 1:
            found.setdefault(closest[0], []).append(nic)
    return found


def _device_line(device: NodeDevice, nics: list[NodeNic], relation: str) -> str:
    name = f"GPU{device.index}" + (f" {device.slice}" if device.slice else "")
    health = " !" if device.complaints else ""
    ends = ", ".join(_nic_text(nic) for nic in nics)
    return f"{name:<8}" + (f"──{relation:─<4}── {ends}" if nics else "") + health


def _nic_text(nic: NodeNic) -> str:
    rate = f" {nic.bytes_per_second * 8 / 1e9:g} Gb/s" if nic.bytes_per_second else ""
    state = " DOWN" if nic.state == "down" else ""
    use = "" if nic.compute else " (not for training)"
    return f"{nic.name}{rate}{state}{use}"


def _joints(node: NodeTopology) -> list[str]:
    """Return the fast links: one line for switches, else one for each kind of joined pairs."""
    count = len(node.devices)
    if node.switched:
        links = min((link_count(c) for row in node.matrix for c in row if is_fast(c)), default=0)
        rate = node.devices[0].link_bytes_per_second
        speed = f", {format_count(links * rate, 'B/s')} each way" if rate else ""
        many = f"{node.nvswitches} NVSwitches" if node.nvswitches else "NVSwitch"
        alone = [a for a in range(count) if not any(is_fast(node.relation(a, b)) for b in range(count))]
        without = f" without GPU{', GPU'.join(map(str, alone))}" if alone else ""
        return [f"GPU0–GPU{count - 1}{without}: {links} NVLinks each to {many}{speed}"]
    kinds: dict[str, list[str]] = {}
    for a, b in combinations(range(count), 2):
        cell = node.relation(a, b)
        if is_fast(cell):
            kinds.setdefault(cell, []).append(f"{a}═{b}")
    if len(kinds) == 1 and len(next(iter(kinds.values()))) == count * (count - 1) // 2 and count > 2:
        return [f"GPU0–GPU{count - 1}: {next(iter(kinds))} between all pairs"]
    return [f"{cell}: {'  '.join(pairs)}" for cell, pairs in sorted(kinds.items())]


def _rails(node: NodeTopology) -> list[str]:
    reach = [f"GPUDirect RDMA: {node.gpu_direct}"] if node.gpu_direct else []
    if is_railed(node):
        return ["rails: every device has a NIC of its own behind its PCIe switch", *reach]
    users = Counter(near[0] for near in nearest_nics(node) if near)
    if not users or max(users.values()) == 1:
        return reach
    nics = len(compute_nics(node))
    shares = ", ".join(f"{node.nics[i].name} by {n}" for i, n in users.items())
    return [f"{nics} NIC(s) shared: {shares}", *reach]


def link_rows(cluster: ClusterSpec) -> list[tuple[str, str, str, str, str]]:
    """Return the link classes as rows: name, span, bandwidth of a device, latency, source."""
    return [
        (
            link.name,
            "all" if link.span is None else str(link.span),
            format_count(link.device_bytes_per_second, "B/s"),
            f"{link.latency_seconds * 1e6:g} µs",
            link.source,
        )
        for link in cluster.links
    ]
