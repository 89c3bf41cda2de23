"""What one node says of itself before training, in one JSON file of the run directory."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from planner.probe import probe
from profiles.cluster import ClusterSpec
from profiles.documents import Record, validate, write_text
from profiles.errors import ConfigError, FieldError

INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA")
PACKAGES = ("cuboid", "torch")


class Port(Record):
    """One network port that ranks could use."""

    name: str
    state: str
    bytes_per_second: float | None = None


class NodeFacts(Record):
    """One node as it is; sizes in bytes, `clock_seconds` since the epoch."""

    host: str
    devices: tuple[str, ...]  # a name each; empty on a node that computes on its processors
    device: str  # the kind, under the name a plan uses
    cores: int
    versions: dict[str, str]
    free_bytes: dict[str, int]
    memlock_bytes: int | None  # None: unlimited
    open_files: int
    clock_seconds: float
    token: str  # the text found in the run directory, to show that it is the same one
    interfaces: tuple[str, ...]
    ports: tuple[Port, ...]
    variables: dict[str, str]
    problems: tuple[str, ...] = ()


def gather(run: Path, folder: Path, *, environment: Mapping[str, str] | None = None) -> NodeFacts:
    """Return what this node is, as seen by a task of the job."""
    variables = os.environ if environment is None else environment
    cluster = probe()
    node = cluster.topology.node if cluster.topology else None
    names = tuple(device.name or "unknown" for device in node.devices) if node else ()
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and names:
        names = names[: len([word for word in visible.split(",") if word])]
    token = folder / "token"
    return NodeFacts(
        host=socket.gethostname().split(".")[0],
        devices=names,
        device=cluster.device.name,
        cores=cluster.cores_per_node or 1,
        versions=_versions(cluster),
        free_bytes={name: _free(path) for name, path in _folders(run).items()},
        memlock_bytes=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE) or 1 << 30,
        clock_seconds=time.time(),
        token=token.read_text(encoding="utf-8").strip() if token.exists() else "",
        interfaces=tuple(name for _, name in socket.if_nameindex()),
        ports=tuple(
            Port(name=nic.name, state=nic.state, bytes_per_second=nic.bytes_per_second)
            for nic in (node.nics if node else ())
            if nic.kind != "ethernet"
        ),
        variables={name: variables[name] for name in INTERFACE_VARIABLES if name in variables},
        problems=tuple(problem.message for problem in node.problems) if node else (),
    )


def write_facts(folder: Path, facts: NodeFacts) -> None:
    """Lay the facts beside those of the other nodes."""
    write_text(folder / f"{facts.host}.json", facts.model_dump_json(indent=1) + "\n")


def read_facts(folder: Path) -> dict[str, NodeFacts]:
    """Return the facts of every node that has answered, by host.

    Raises:
        ConfigError: when a file holds something else.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            facts = validate(NodeFacts, json.loads(path.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, FieldError) as error:
            raise ConfigError(f"{path}: not the facts of a node: {error}") from None
        found[facts.host] = facts
    return found


def _versions(cluster: ClusterSpec) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    if cluster.topology and cluster.topology.node.driver:
        versions["driver"] = cluster.topology.node.driver
    return versions


def _folders(run: Path) -> dict[str, Path]:
    return {"run": run, "tmp": Path(os.environ.get("TMPDIR", "/tmp")), "shm": Path("/dev/shm")}  # noqa: S108


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
