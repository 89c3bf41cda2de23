"""Probe this machine, or replay what was recorded on another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.probe.assemble import cluster_of
from planner.probe.cpu import cpu_cluster
from planner.probe.files import Files, LiveFiles
from planner.probe.host import read_host
from planner.probe.node import read_node
from planner.probe.nvml import LiveNvml, Nvml
from planner.probe.sentence import with_summary
from planner.probe.visible import only_visible, visible_text
from profiles.cluster import ClusterSpec
from profiles.topology import ClusterTopology


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the probe asks: the driver's library, the system's files, and the variables that hide devices."""

    nvml: Nvml
    files: Files
    variables: Mapping[str, str] = field(default_factory=dict)


def live_sources() -> Sources:
    """Return this machine."""
    return Sources(nvml=LiveNvml(), files=LiveFiles(), variables=visible_text(os.environ))


def probe(
    *, ranks: int | None = None, device: str | None = None, sources: Sources | None = None
) -> ClusterSpec:
    """Return this machine as a cluster of one node; what cannot be seen is in `notes`.

    `ranks` is the number of rank slots on a machine without accelerators (default: one per usable core);
    `device` names the preset of the devices, when the driver's word for them is not to be trusted.

    Raises:
        FieldError: when there is no preset `device`; nothing that the machine answers raises.
    """
    sources = sources or live_sources()
    host = read_host(sources.files)
    node = only_visible(read_node(sources.nvml, sources.files, host), sources.variables)
    if node.devices:
        return cluster_of(node, device=device)
    cluster = cpu_cluster(host, ranks=ranks)
    seen = [f"{p.message}" + (f" → {p.remedy}" if p.remedy else "") for p in node.problems]
    notes = (
        *seen,
        "no accelerator was found",
        *node.notes,
        *(n for n in cluster.notes if n not in host.notes),
    )
    topology = ClusterTopology(node=node, hosts=(node.host,) if node.host else ())
    return with_summary(cluster.model_copy(update={"notes": notes, "topology": topology}))
