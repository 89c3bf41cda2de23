"""The link classes of a node, from the innermost to the outermost, as the planner's cost model reads them.

    span 2   a pair: the links between its two devices
    span 4   a quad: for a ring, the links that each device has to the others of its four
    span 8   the node …
    null     the network between nodes

A class is listed where a larger run behaves differently: a box of NVLink pairs has `nvlink` of span 2 and
`pcie` of span 8; with NVSwitch one class of span 8 says all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from planner.probe.identify import link_rate
from planner.probe.order import has_ring, hop_count, link_count, runs
from planner.probe.pci import farther
from profiles.cluster import LinkKind, LinkSpec
from profiles.topology import NodeNic, NodeTopology

LATENCY_SECONDS: dict[LinkKind, float] = {
    "nvswitch": 3e-6,
    "nvlink": 4e-6,
    "xgmi": 4e-6,
    "pcie": 8e-6,
    "shared_memory": 60e-6,
    "infiniband": 8e-6,
    "roce": 10e-6,
    "efa": 20e-6,
    "ethernet": 30e-6,
    "unknown": 30e-6,
}
ASSUMED_PCIE_BYTES_PER_SECOND = 31.5e9  # PCIe 4.0 x16
ASSUMED_NIC_BYTES_PER_SECOND = 12.5e9  # 100 Gb/s
ASSUMED_ETHERNET_BYTES_PER_SECOND = 1.25e9  # 10 Gb/s
NOMINAL = "nominal, until `cuboid bench` measures it"


@dataclass(frozen=True, kw_only=True)
class _Class:
    """How the devices of one run reach each other."""

    kind: LinkKind
    bytes_per_second: float
    relation: str
    source: str


def link_classes(node: NodeTopology) -> tuple[LinkSpec, ...]:
    """Return the classes inside the node (spans) and between nodes (the last one, span null)."""
    count = len(node.devices)
    order = node.device_order or tuple(range(count))
    found: list[tuple[int, _Class]] = []
    for span in (d for d in range(2, count + 1) if count % d == 0):
        slowest = min((_class(node, run) for run in runs(order, span)), key=lambda c: c.bytes_per_second)
        # A class that goes on with the same rate in larger runs is listed once, with the largest.
        if found and (found[-1][1].kind, found[-1][1].bytes_per_second) == (
            slowest.kind,
            slowest.bytes_per_second,
        ):
            found.pop()
        found.append((span, slowest))
    kinds = [c.kind for _, c in found]
    inside = [
        LinkSpec(
            name=c.kind if kinds.count(c.kind) == 1 else f"{c.kind}-{span}",
            kind=c.kind,
            span=span,
            bytes_per_second=c.bytes_per_second,
            latency_seconds=LATENCY_SECONDS[c.kind],
            shared_by=_sharing(found, place),
            source=c.source,
        )
        for place, (span, c) in enumerate(found)
    ]
    return (*inside, network_link(node, devices=count))


def _sharing(found: list[tuple[int, _Class]], place: int) -> int:
    """Return how many devices share the links of a class.

    Where rings through a larger run have fewer links than those inside the runs it is made of, all devices of
    such a run share them.
    """
    (span, inner), (_, outer) = found[max(0, place - 1)], found[place]
    return span if inner.kind == outer.kind and outer.bytes_per_second < inner.bytes_per_second else 1


def _class(node: NodeTopology, run: tuple[int, ...]) -> _Class:
    cells = [node.relation(a, b) for a, b in combinations(run, 2)]
    if has_ring(node, run) and "MIG" not in cells:
        if node.switched:
            return _fast_class(node, run, links=min(n for n in map(link_count, cells) if n))
        return _fast_class(node, run, links=min(_ring_links(node, run, a) for a in run))
    if all(hop_count(cell) for cell in cells):
        hops = max(hop_count(cell) for cell in cells)
        return _fast_class(node, run, links=1, way=f" in up to {hops} hops")
    relation = cells[0]
    for cell in cells[1:]:
        relation = farther(relation, cell)
    rates = [r for r in (node.devices[d].pcie_bytes_per_second for d in run) if r]
    rate = min(rates) if rates else ASSUMED_PCIE_BYTES_PER_SECOND
    basis = node.origins.get("devices", "assumed") if rates else "assumed: PCIe 4.0 x16"
    told = {"SYS": "across sockets", "MIG": "between slices", "?": "over an unknown distance"}
    where = told.get(relation, f"at most {relation}")
    return _Class(
        kind="pcie", bytes_per_second=rate, relation=relation, source=f"PCIe {where}, {NOMINAL} ({basis})"
    )


def _ring_links(node: NodeTopology, run: tuple[int, ...], device: int) -> int:
    """Return how many links of a device rings through all of a run can use.

    A ring enters a device from one neighbour and leaves to another, so links to one neighbour are of use only
    with as many links to others.
    """
    counts = [link_count(node.relation(device, other)) for other in run if other != device]
    return sum(counts) if len(run) == 2 else min(sum(counts), 2 * (sum(counts) - max(counts)))


def _fast_class(node: NodeTopology, run: tuple[int, ...], *, links: int, way: str = "") -> _Class:
    """Return the class of a run whose devices `links` NVLinks or xGMI links each join."""
    xgmi = any(hop_count(node.relation(a, b)) for a, b in combinations(run, 2))
    kind: LinkKind = "xgmi" if xgmi else ("nvswitch" if node.switched else "nvlink")
    known = [r for r in (node.devices[d].link_bytes_per_second for d in run) if r]
    rate = min(known) if known else link_rate(node.devices[run[0]].name, amd=xgmi)
    label = ("xGMI link" if xgmi else "NVLink") + ("s" if links > 1 else "")
    basis = f"{node.origins.get('matrix', 'assumed')}" if known else "rate per link assumed"
    source = f"{links} {label}{way} of {rate / 1e9:g} GB/s, {NOMINAL} ({basis})"
    return _Class(kind=kind, bytes_per_second=links * rate, relation="fast", source=source)


def compute_nics(node: NodeTopology) -> list[NodeNic]:
    """Return the NICs that training traffic can use: marked for it, and not down."""
    return [nic for nic in node.nics if nic.compute and nic.state != "down"]


def network_link(node: NodeTopology, *, devices: int) -> LinkSpec:
    """Return the class between nodes of `devices` each: one port, and how many devices share it."""
    nics = compute_nics(node)
    if not nics:
        return LinkSpec(
            name="ethernet",
            kind="ethernet",
            bytes_per_second=ASSUMED_ETHERNET_BYTES_PER_SECOND,
            latency_seconds=LATENCY_SECONDS["ethernet"],
            shared_by=devices,
            source="assumed: no NIC was seen, 10 Gb/s a node",
        )
    kinds: list[LinkKind] = [nic.kind for nic in nics]
    kind = max(sorted(set(kinds)), key=kinds.count)
    rates = [nic.bytes_per_second for nic in nics if nic.bytes_per_second]
    unknown = ASSUMED_ETHERNET_BYTES_PER_SECOND if kind == "ethernet" else ASSUMED_NIC_BYTES_PER_SECOND
    rate = min(rates) if rates else unknown
    told = f"{rate * 8 / 1e9:g} Gb/s a port" + ("" if rates else ", assumed: the rate is not known")
    origin = node.origins.get("nics", "assumed")
    return LinkSpec(
        name=kind if kind != "unknown" else "network",
        kind=kind,
        bytes_per_second=rate,
        latency_seconds=LATENCY_SECONDS[kind],
        shared_by=devices / len(nics),
        source=f"{len(nics)} port(s) for {devices} device(s), {told} ({origin})",
    )


def nearest_nics(node: NodeTopology) -> list[tuple[int, str] | None]:
    """Return of every device the nearest usable NIC (index among `nics`) and its relation.

    Among equally near ones a device takes the one that fewest devices before it took.
    """
    rank = {relation: i for i, relation in enumerate(("PIX", "PXB", "C2C", "PHB", "NODE", "SYS", "?"))}
    usable = [i for i, nic in enumerate(node.nics) if nic in compute_nics(node)]
    taken = dict.fromkeys(usable, 0)
    found: list[tuple[int, str] | None] = []
    for device in range(len(node.devices)):
        cells = {i: node.relation(device, len(node.devices) + i) for i in usable}
        if not cells:
            found.append(None)
            continue
        best = min(cells, key=lambda i: (rank.get(cells[i], len(rank)), taken[i], i))
        taken[best] += 1
        found.append((best, cells[best]))
    return found
