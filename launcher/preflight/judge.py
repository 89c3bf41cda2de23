"""Compare what the nodes said with what the plan was made for.

An error keeps training from starting and names the nodes to leave out; a warning is shown.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from launcher.preflight.facts import NodeFacts
from launcher.slurm.placement import place
from planner.job import Job
from profiles.units import format_bytes

RDMA_MEMLOCK_BYTES = 1 << 30
LEAST_OPEN_FILES = 1024
LEAST_SHARED_MEMORY_BYTES = 64 << 20
CLOCK_SKEW_SECONDS = 30.0
SLOW_SHARE = 0.8
LONGEST_VERDICT = 200
CHECKPOINT_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One thing that is not as it has to be on one node."""

    host: str
    check: str
    message: str
    severity: Literal["error", "warning"] = "error"


def judge(
    job: Job,
    hosts: Sequence[str],
    facts: Mapping[str, NodeFacts],
    *,
    token: str,
    ranks_per_node: int | None = None,
) -> tuple[Trouble, ...]:
    """Return all troubles of the nodes `hosts`; `token` is what the run directory holds.

    `ranks_per_node` is what the plan puts on one node unless it is given.
    """
    ranks_per_node = ranks_per_node or place(job.plan).ranks_per_node
    troubles: list[Trouble] = []
    for host in hosts:
        node = facts.get(host)
        if node is None:
            message = "no answer: the node is not reachable, or does not see the run directory"
            troubles.append(Trouble(host=host, check="answer", message=message))
            continue
        troubles += _devices(job, node, ranks_per_node)
        troubles += _storage(job, node, token)
        troubles += _limits(node)
        troubles += _network(node)
        troubles += [
            Trouble(host=host, check="hardware", message=problem, severity="warning")
            for problem in node.problems
        ]
    present = [facts[host] for host in hosts if host in facts]
    troubles += _differences(present)
    return tuple(troubles)


def _devices(job: Job, node: NodeFacts, wanted: int) -> Iterator[Trouble]:
    cluster = job.plan.cluster
    if cluster.device.vendor == "cpu":
        planned = cluster.cores_per_node
        if planned and node.cores != planned:
            few = node.cores < planned
            yield Trouble(
                host=node.host,
                check="devices",
                message=f"{node.cores} usable cores, the plan was made for {planned}",
                severity="error" if few else "warning",
            )
        return
    if len(node.devices) != wanted:
        message = f"{len(node.devices)} devices, the plan puts {wanted} ranks on a node"
        yield Trouble(host=node.host, check="devices", message=message)
    elif node.device != cluster.device.name:
        message = f"devices are {node.device}, the plan is for {cluster.device.name}"
        yield Trouble(host=node.host, check="devices", message=message)
    if len(set(node.devices)) > 1:
        message = f"unlike devices: {', '.join(sorted(set(node.devices)))}"
        yield Trouble(host=node.host, check="devices", message=message)


def _storage(job: Job, node: NodeFacts, token: str) -> Iterator[Trouble]:
    if node.token != token:
        message = "the run directory is another one here: it is not shared between the nodes"
        yield Trouble(host=node.host, check="shared directory", message=message)
    one = CHECKPOINT_BYTES_PER_PARAMETER * job.plan.model.parameters
    needed = (job.checkpoint.keep + 1) * one
    free = node.free_bytes.get("run", 0)
    if free < needed:
        message = (
            f"{format_bytes(free)} free in the run directory,"
            f" {job.checkpoint.keep + 1} checkpoints need {format_bytes(needed)}"
        )
        yield Trouble(host=node.host, check="disk", message=message)
    shared = node.free_bytes.get("shm", 0)
    if shared < LEAST_SHARED_MEMORY_BYTES:
        message = f"{format_bytes(shared)} free in /dev/shm; data loaders and NCCL need more"
        yield Trouble(host=node.host, check="disk", message=message, severity="warning")


def _limits(node: NodeFacts) -> Iterator[Trouble]:
    if node.ports and node.memlock_bytes is not None and node.memlock_bytes < RDMA_MEMLOCK_BYTES:
        message = (
            f"max locked memory is {format_bytes(node.memlock_bytes)}, RDMA needs it unlimited;"
            " set memlock in /etc/security/limits.d and LimitMEMLOCK of slurmd"
        )
        yield Trouble(host=node.host, check="memlock", message=message)
    if node.open_files < LEAST_OPEN_FILES:
        message = f"only {node.open_files} open files allowed; raise nofile to {LEAST_OPEN_FILES} or more"
        yield Trouble(host=node.host, check="open files", message=message, severity="warning")


def _network(node: NodeFacts) -> Iterator[Trouble]:
    ports = [port.name.split(":")[0].split("/")[0] for port in node.ports]
    for name, value in node.variables.items():
        known = ports if name == "NCCL_IB_HCA" else list(node.interfaces)
        if not selects(value, known, exact=name == "GLOO_SOCKET_IFNAME"):
            message = (
                f"{name}={value} names no interface of this node ({', '.join(known) or 'none'});"
                " is it a setting of another cluster?"
            )
            yield Trouble(host=node.host, check="interface", message=message)
    down = [port.name for port in node.ports if port.state == "down"]
    if down:
        message = f"ports are down: {', '.join(down)}"
        yield Trouble(host=node.host, check="links", message=message, severity="warning")


def judge_collective(
    job: Job, hosts: Sequence[str], result: Mapping[str, float] | None
) -> tuple[Trouble, ...]:
    """Return what is wrong with the measured all-reduce over all ranks; None is one that did not end.

    The expectation is the bandwidth of the outermost link the ranks use, as the plan was priced with; less
    than four fifths of it is worth a warning (the usual rule of thumb).
    """
    everyone = hosts[0] if len(hosts) == 1 else f"{hosts[0]}…{hosts[-1]}"
    if result is None:
        message = "the all-reduce over all ranks did not end"
        return (Trouble(host=everyone, check="collective", message=message),)
    world = job.plan.layout.world_size
    links = job.plan.cluster.links
    link = next((link for link in links if (link.span or world) >= world), links[-1])
    measured, expected = result["bytes_per_second"], link.device_bytes_per_second
    if measured >= SLOW_SHARE * expected:
        return ()
    message = (
        f"all-reduce carries {format_bytes(measured)}/s a device, {measured / expected:.0%} of what the plan"
        f" expects of {link.name}"
    )
    return (Trouble(host=everyone, check="collective", message=message, severity="warning"),)


def selects(selector: str, names: Sequence[str], *, exact: bool = False) -> bool:
    """Tell whether an interface selector takes any of `names`.

    NCCL's grammar: `^` excludes, `=` asks for exact names, otherwise prefixes; several are separated by
    commas, each perhaps with a port, `mlx5_0:1`. gloo (`exact`) knows only names.
    """
    excluded = selector.startswith("^")
    text = selector.lstrip("^")
    exact = exact or text.startswith("=")
    wanted = [word.split(":")[0] for word in text.lstrip("=").split(",") if word]

    def taken(name: str) -> bool:
        hit = name in wanted if exact else any(name.startswith(word) for word in wanted)
        return hit != excluded

    return any(taken(name) for name in names)


def _differences(nodes: Sequence[NodeFacts]) -> Iterator[Trouble]:
    """What has to be equal on all nodes; the minority is in the wrong."""
    for name in sorted({name for node in nodes for name in node.versions}):
        yield from _minority(nodes, name, {node.host: node.versions.get(name, "missing") for node in nodes})
    ports = {node.host: f"{len([p for p in node.ports if p.state != 'down'])} ports up" for node in nodes}
    yield from _minority(nodes, "links", ports)
    middle = median(node.clock_seconds for node in nodes) if nodes else 0.0
    for node in nodes:
        skew = node.clock_seconds - middle
        if abs(skew) > CLOCK_SKEW_SECONDS:
            message = f"the clock is {skew:+.0f} s from the others'"
            yield Trouble(host=node.host, check="clock", message=message, severity="warning")


def _minority(nodes: Sequence[NodeFacts], what: str, values: Mapping[str, str]) -> Iterator[Trouble]:
    counts = Counter(values.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for node in nodes:
        if values[node.host] != usual:
            message = f"{values[node.host]}, other nodes have {usual}"
            yield Trouble(host=node.host, check=what, message=message)


def exclude_list(hosts: Sequence[str], troubles: Sequence[Trouble]) -> str:
    """Return the hosts with an error for `--exclude`; what is wrong on every node leaves none of them out."""
    shared = everywhere(hosts, troubles)
    bad = {t.host for t in troubles if t.severity == "error" and t not in shared}
    return ",".join(host for host in hosts if host in bad)


def everywhere(hosts: Sequence[str], troubles: Sequence[Trouble]) -> tuple[Trouble, ...]:
    """Return the errors that every one of several nodes has alike: no node is to blame for them."""
    having: dict[tuple[str, str], set[str]] = defaultdict(set)
    errors = [t for t in troubles if t.severity == "error"]
    for error in errors:
        having[_same(error)].add(error.host)
    return tuple(t for t in errors if len(hosts) > 1 and having[_same(t)] >= set(hosts))


def _same(trouble: Trouble) -> tuple[str, str]:
    """What two nodes have in common; they see the shared disk at slightly different moments."""
    return trouble.check, "" if trouble.check == "disk" else trouble.message


def verdict(hosts: Sequence[str], troubles: Sequence[Trouble]) -> str:
    """Return the first error in one line, and how many more there are; empty without one.

    The batch script puts it into JSON, so it holds no quote, backslash or control character.
    """
    shared = everywhere(hosts, troubles)
    errors = [("every node" if t in shared else t.host, t.message) for t in troubles if t.severity == "error"]
    if not errors:
        return ""
    more = len(set(errors)) - 1
    words = f"{errors[0][0]}: {errors[0][1]}"[:LONGEST_VERDICT] + (f" (and {more} more)" if more else "")
    return re.sub(r"[\"\\\x00-\x1f\x7f]", " ", words)
