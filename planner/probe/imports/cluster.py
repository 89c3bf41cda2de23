"""`--import FILE` of every kind, as a cluster."""

from __future__ import annotations

from pathlib import Path

from planner.probe.assemble import cluster_of
from planner.probe.imports.finish import identify_as
from planner.probe.imports.load import KINDS, document_kind, read_import, read_topology
from planner.probe.snapshot import Snapshot, replay
from profiles.cluster import ClusterSpec
from profiles.documents import parse_yaml
from profiles.errors import ConfigError
from profiles.presets import load_cluster, preset_names


def import_cluster(path: Path, *, device: str | None = None, ranks: int | None = None) -> ClusterSpec:
    """Return the cluster that a file describes: a foreign topology, a cluster.yaml, a snapshot or a preset.

    Raises:
        ConfigError: when it cannot be read, with what was expected.
    """
    if not path.exists() and str(path) in preset_names("clusters"):
        return load_cluster(str(path))
    file = read_import(path)
    kind = document_kind(file)
    if kind == "cluster":
        return load_cluster(str(path))
    if kind == "snapshot":
        return replay(parse_yaml(file.text, name=file.name).read(Snapshot), device=device, ranks=ranks)
    if kind is not None:
        raise ConfigError(f"{file.name}: is of kind '{kind[:40]}'; expected {KINDS}")
    node = read_topology(file)
    if device:
        node = identify_as(node, device)
    cluster = cluster_of(node, device=device)
    return cluster.model_copy(update={"name": node.host or path.name.split(".")[0] or "imported"})
