"""Probe this machine."""

from __future__ import annotations

from planner.probe.cpu import cpu_cluster
from planner.probe.files import Files, LiveFiles
from planner.probe.host import read_host
from profiles.cluster import ClusterSpec


def probe(*, ranks: int | None = None, files: Files | None = None) -> ClusterSpec:
    """Return this machine as a cluster of one node. Never raises: what cannot be seen is in `notes`.

    `ranks` is the number of rank slots on a machine without accelerators (default: one per usable core).
    """
    host = read_host(files or LiveFiles())
    cluster = cpu_cluster(host, ranks=ranks)
    notes = ("only processors were looked at, no accelerators", *cluster.notes)
    return cluster.model_copy(update={"notes": notes})
