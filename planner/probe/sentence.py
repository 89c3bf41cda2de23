"""The sentence a person needs: what the machine is, and how far tensor parallelism should reach."""

from __future__ import annotations

from collections import Counter

from planner.probe.identify import short_name
from planner.probe.links import compute_nics, nearest_nics
from planner.probe.order import all_joined, has_ring, hop_count, is_cube_mesh, is_fast, islands, runs
from profiles.cluster import ClusterSpec
from profiles.topology import NodeTopology
from profiles.units import format_bytes

DENIALS = frozenset({"fabric-manager", "nvlink-denied", "p2p-disabled"})  # problems of NVLinks that are up
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def describe_node(node: NodeTopology) -> str:
    """Return one sentence: devices, their links, NICs, and the advice for tp."""
    if not node.devices:
        return "no accelerator was found"
    parts = [_devices(node), _links(node), _nics(node)]
    return ", ".join(part for part in parts if part) + f": {_advice(node)}"


def describe_cluster(cluster: ClusterSpec) -> str:
    """Return one sentence about a cluster, whether it was probed or comes from a preset."""
    node = cluster.topology.node if cluster.topology else None
    each = f"{cluster.nodes} nodes, each " if cluster.nodes > 1 else ""
    if node and node.devices:
        return each + describe_node(node)
    device = cluster.device
    if device.vendor == "cpu":
        stopped = [problem.message for problem in node.problems if problem.name != "nic-down"] if node else []
        hindrance = f"no usable accelerator ({stopped[0]}); " if stopped else ""
        return (
            f"{hindrance}{each}{cluster.devices_per_node} rank slot(s) ×"
            f" {format_bytes(device.memory_bytes)} on {cluster.cores_per_node} core(s) of {device.name},"
            " joined by shared memory"
        )
    links = ", ".join(link.name for link in cluster.links)
    return f"{each}{cluster.devices_per_node} × {device.name}, links from the inside out: {links}"


def with_summary(cluster: ClusterSpec) -> ClusterSpec:
    """Return the cluster with its sentence."""
    return cluster.model_copy(update={"summary": describe_cluster(cluster)})


def largest_fast_span(node: NodeTopology) -> int:
    """Return the largest run of devices that a ring over direct links or NVSwitch joins; 1 without any."""
    count = len(node.devices)
    order = node.device_order or tuple(range(count))
    spans = [s for s in range(2, count + 1) if count % s == 0]
    return max((s for s in spans if all(has_ring(node, run) for run in runs(order, s))), default=1)


def _devices(node: NodeTopology) -> str:
    slices = [device for device in node.devices if device.slice is not None]
    whole = [device for device in node.devices if device.slice is None]
    names = Counter(short_name(device.name) + (" (vGPU)" if device.virtual else "") for device in whole)
    parts = [f"{n} × {name}" for name, n in names.items()]
    if slices:
        boards = {device.bus_id or device.index for device in slices}
        profiles = ", ".join(f"{n} × {name}" for name, n in sorted(Counter(d.slice for d in slices).items()))
        many = f"{len(slices)} MIG slice" + ("s" if len(slices) > 1 else "")
        parts.append(f"{many} ({profiles}) of {len(boards)} × {short_name(slices[0].name)}")
    return " and ".join(parts)


def _links(node: NodeTopology) -> str:
    count = len(node.devices)
    if count == 1:
        return "single device" + (" with links to the processor" if node.devices[0].host_links else "")
    if any(device.slice for device in node.devices):
        return "no links between slices"
    if any(is_fast(cell) for row in node.matrix for cell in row):
        told = _switched(node) if node.switched else _direct(node)
        return told + (" (assumed for this board)" if node.links == "assumed" else "")
    if node.links == "unknown":
        return f"{_fast_name(node)} not in this file"
    return _slow_links(node)


def _slow_links(node: NodeTopology) -> str:
    """Say how devices reach each other that no fast link joins."""
    count = len(node.devices)
    if {node.relation(a, b) for a in range(count) for b in range(a)} == {"?"}:
        return "links between devices not known"
    if DENIALS & {problem.name for problem in node.problems}:
        return "PCIe only (NVLinks are up, but the driver does not let them be used)"
    return "PCIe only" + (" (no NVLink seen)" if node.devices[0].vendor == "nvidia" else "")


def _fast_name(node: NodeTopology) -> str:
    return {"nvidia": "NVLink", "amd": "xGMI"}.get(node.devices[0].vendor, "a direct link")


def _switched(node: NodeTopology) -> str:
    through = f"{node.nvswitches} NVSwitches" if node.nvswitches else "NVSwitch"
    beyond = " in a domain that reaches beyond the node" if node.devices[0].fabric else ""
    if all_joined(node, range(len(node.devices))):
        return f"all-to-all NVLink through {through}{beyond}"
    return f"NVLink through {through}{beyond}, but not between all pairs"


def _direct(node: NodeTopology) -> str:
    hops = max(hop_count(cell) for row in node.matrix for cell in row)
    label = "xGMI" if hops else "NVLink"
    if is_cube_mesh(node):
        return f"{label} hybrid cube mesh ({_link_counts(node)} links per device)"
    if all_joined(node, range(len(node.devices))):
        return f"all-to-all {label}" + (f" ({_link_counts(node)} links)" if label == "NVLink" else "")
    if hops > 1:
        return f"xGMI in up to {hops} hops ({_link_counts(node)} links per device)"
    sizes = Counter(len(group) for group in islands(node, is_fast))
    if len(node.devices) in sizes:
        return f"{label} mesh ({_link_counts(node)} links per device), not between all pairs"
    names = {1: "single devices", 2: "pairs", 4: "fours"}
    shape = " and ".join(f"{names.get(size, f'groups of {size}')}" for size in sorted(sizes, reverse=True))
    return f"{label} {shape} ({_link_counts(node)} links), PCIe between them"


def _link_counts(node: NodeTopology) -> str:
    counts = {d.links for d in node.devices if d.links}
    if not counts:
        return "unknown"
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"


def _nics(node: NodeTopology) -> str:
    nics, devices = compute_nics(node), len(node.devices)
    if not nics:
        return "no NIC seen"
    rates = {nic.bytes_per_second for nic in nics}
    rate = next(iter(rates)) if len(rates) == 1 else None
    speed = f"{rate * 8 / 1e9:g} Gb/s " if rate else ""
    kind = Counter(nic.kind for nic in nics).most_common(1)[0][0]
    label = {"efa": "EFA ", "ethernet": "Ethernet "}.get(kind, "")
    if len(nics) == devices:
        text = f"one {speed}{label}NIC per {_unit(node)}"
    elif len(nics) < devices and devices % len(nics) == 0:
        text = f"one {speed}{label}NIC for {devices // len(nics)} {_unit(node)}s"
    elif len(nics) % devices == 0:
        text = f"{_many(len(nics) // devices)} {speed}{label}NICs per {_unit(node)}"
    else:
        text = f"{_many(len(nics))} {speed}{label}NICs for {devices} {_unit(node)}s"
    return text


def _many(count: int) -> str:
    """Return a number that another may follow: `two`, or `16 ×`."""
    return COUNTS.get(count, f"{count} ×")


def is_railed(node: NodeTopology) -> bool:
    """Tell whether every device has a NIC of its own behind the same PCIe switch, in the same order."""
    nearest = nearest_nics(node)
    if len(nearest) < 2 or any(each is None or each[1] not in {"PIX", "PXB"} for each in nearest):
        return False
    chosen = [each[0] for each in nearest if each]
    return chosen == sorted(set(chosen))


def _unit(node: NodeTopology) -> str:
    return "slice" if any(device.slice for device in node.devices) else "GPU"


def _advice(node: NodeTopology) -> str:
    count, span = len(node.devices), largest_fast_span(node)
    if any(device.slice for device in node.devices):
        return "tp 1 (slices have no links); turn MIG off for training"
    if count == 1:
        return "tp 1"
    if span == count:
        text = f"tp up to {count} inside a node"
        if is_cube_mesh(node):
            text += " over rings (4 where all are joined)"
        if node.devices[0].fabric:
            text += ", further inside the NVLink domain"
        return text
    return f"tp up to {span} inside a node; beyond that it runs over PCIe" if span > 1 else _slow_advice(node)


def _slow_advice(node: NodeTopology) -> str:
    """Return the advice for a node without equal groups of joined devices."""
    count = len(node.devices)
    if node.links == "unknown":
        return f"tp up to {count} if {_fast_name(node)} joins them; probe the node itself to know"
    if not any(is_fast(cell) for row in node.matrix for cell in row):
        few = "2" if count == 2 else f"2 of {count}"
        return f"tp at most {few} (over PCIe it costs more than it saves); prefer pp and dp"
    return f"tp 1 on all {count} (links join them in unequal groups); more with some of them left out"
