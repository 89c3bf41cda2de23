"""Many nodes, one cluster: the usual node stands for all, the slowest sets the rates, odd ones are named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from planner.probe.compare import odd_nodes
from planner.probe.links import network_link
from planner.probe.sentence import with_summary
from profiles.cluster import ClusterSpec, LinkSpec
from profiles.errors import ConfigError
from profiles.topology import ClusterTopology, SwitchSpec

MAX_HOSTS = 100_000


def merge_nodes(clusters: Mapping[str, ClusterSpec], *, switches: Sequence[SwitchSpec] = ()) -> ClusterSpec:
    """Return one cluster of the nodes that have the usual devices; the others are named in `notes`.

    Raises:
        ConfigError: when there is no node.
    """
    if not clusters:
        raise ConfigError("no node answered")
    shapes = {host: (c.devices_per_node, c.device.name) for host, c in clusters.items()}
    usual = Counter(shapes.values()).most_common(1)[0][0]
    hosts = [host for host in clusters if shapes[host] == usual]
    left_out = [host for host in clusters if shapes[host] != usual]
    odd = odd_nodes(clusters)
    # The node with the fewest peculiarities stands for all.
    model = clusters[min(hosts, key=lambda host: (len(odd.get(host, ())), hosts.index(host)))]
    members = [clusters[host] for host in hosts]
    domains = _domains({host: clusters[host] for host in hosts})
    notes = []
    if left_out:
        notes.append(
            f"left out, for other devices than the usual {usual[0]} × {usual[1]}: {', '.join(left_out)}"
        )
    notes += [f"{host} is odd: {'; '.join(found)}" for host, found in odd.items()]
    if odd:
        notes.append(
            f"rates are those of the slowest node; leave odd ones out with --exclude={','.join(odd)}"
        )
    node = model.topology.node if model.topology else None
    merged = model.model_copy(
        update={
            "name": f"{len(hosts)}-nodes" if len(hosts) > 1 else model.name,
            "nodes": len(hosts),
            "device": model.device.model_copy(
                update={"memory_bytes": min(member.device.memory_bytes for member in members)}
            ),
            "links": _links(model, members, domains),
            "origins": {**model.origins, "nodes": f"{len(clusters)} node(s) probed"},
            "notes": (*notes, *(note for note in model.notes if note not in notes)),
            "topology": ClusterTopology(
                node=node,
                hosts=tuple(host for domain in domains for host in domain),
                switches=tuple(switches),
                odd=tuple(f"{host}: {text}" for host, found in odd.items() for text in found),
            )
            if node
            else None,
        }
    )
    return with_summary(merged)


def _domains(clusters: Mapping[str, ClusterSpec]) -> list[list[str]]:
    """Return the hosts by NVLink domain: those whose devices all name the same one share it."""
    groups: dict[str, list[str]] = {}
    for host, cluster in clusters.items():
        devices = cluster.topology.node.devices if cluster.topology else ()
        names = {device.fabric for device in devices}
        shared = names.pop() if len(names) == 1 else None
        groups.setdefault(shared or f"alone {host}", []).append(host)
    return list(groups.values())


def _links(
    model: ClusterSpec, members: Sequence[ClusterSpec], domains: list[list[str]]
) -> tuple[LinkSpec, ...]:
    """Return the model's links at the slowest node's rates; an NVLink domain's span grows over its nodes."""
    slowest = []
    for link in model.links:
        same = [other for member in members for other in member.links if other.name == link.name]
        slowest.append(min(same, key=lambda other: other.device_bytes_per_second))
    shared = min(len(domain) for domain in domains)
    # Runs of consecutive devices must not cross domains: every domain needs a whole number of such runs.
    while any(len(domain) % shared for domain in domains):
        shared -= 1
    inside = [i for i, link in enumerate(slowest) if link.kind == "nvswitch"]
    if shared > 1 and inside:
        last = inside[-1]
        span = shared * model.devices_per_node
        source = f"{slowest[last].source}; one NVLink domain over {shared} nodes"
        slowest[last] = slowest[last].model_copy(update={"span": span, "source": source})
    if slowest[-1].kind == "shared_memory" and len(members) > 1 and model.topology:
        slowest[-1] = slowest[-1].model_copy(update={"span": model.devices_per_node})
        slowest.append(network_link(model.topology.node, devices=model.devices_per_node))
    return tuple(slowest)


def parse_switches(text: str) -> tuple[SwitchSpec, ...]:
    """Return the switches of `scontrol show topology`, one a line; other lines are left out."""
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        name, level = fields.get("SwitchName"), fields.get("Level", "")
        if name and re.fullmatch(r"\d{1,3}", level):
            found.append(
                SwitchSpec(
                    name=name,
                    level=int(level),
                    hosts=expand_hosts(fields.get("Nodes", "")) if level == "0" else (),
                    switches=expand_hosts(fields.get("Switches", "")),
                )
            )
    return tuple(found)


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the hosts of a list as SLURM writes it: `n[1-3,7],login` is n1, n2, n3, n7, login."""
    found: list[str] = []
    if text.count("[") != text.count("]"):
        return ()
    for part in re.findall(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)*", text):
        hosts = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            pieces = [literal] if literal else [n for piece in ranges.split(",") for n in _numbers(piece)]
            hosts = [host + piece for host in hosts for piece in pieces][:MAX_HOSTS]
        found += [host for host in hosts if host and host != "(null)"]
    return tuple(found[:MAX_HOSTS])


def _numbers(piece: str) -> list[str]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", piece)
    if not match:
        return []
    first, last = match.group(1), match.group(2) or match.group(1)
    stop = min(int(last), int(first) + MAX_HOSTS)
    return [str(number).zfill(len(first)) for number in range(int(first), stop + 1)]
