"""Each thing that can be wrong with a node is found on that node and on no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.preflight.facts import NodeFacts, Port, gather, read_facts, write_facts
from launcher.preflight.judge import exclude_list, judge, judge_collective, selects, verdict
from planner.job import Job
from planner.plan import plan_from_data

HOSTS = ("n1", "n2", "n3")


@pytest.fixture
def job() -> Job:
    layout = {"tp": 8, "pp": 3, "global_batch": 12}
    cluster = {"preset": "dgx-h100", "nodes": 3}
    data = {"kind": "plan", "model": {"preset": "gpt2-medium"}, "cluster": cluster, "layout": layout}
    return Job(plan=plan_from_data({**data, "layout": {**layout, "pp": 3}}, Path()))


def facts_of(job: Job, host: str, **changes: Any) -> NodeFacts:
    facts = NodeFacts(
        host=host,
        devices=("NVIDIA H100 80GB HBM3",) * 8,
        device=job.plan.cluster.device.name,
        cores=96,
        versions={"torch": "2.13.0", "cuboid": "0.1.0", "driver": "570.1"},
        free_bytes={"run": 1 << 44, "tmp": 1 << 40, "shm": 1 << 38},
        memlock_bytes=None,
        open_files=1 << 20,
        clock_seconds=1e9,
        token="job 1",
        interfaces=("lo", "eth0", "ib0"),
        ports=tuple(Port(name=f"mlx5_{i}", state="active") for i in range(8)),
        variables={"NCCL_SOCKET_IFNAME": "eth", "NCCL_IB_HCA": "=mlx5_0,mlx5_1"},
    )
    return facts.model_copy(update=changes)


def judged(job: Job, **changes: Any) -> list[tuple[str, str, str]]:
    """Troubles when the second node differs by `changes`."""
    nodes = {host: facts_of(job, host, **(changes if host == "n2" else {})) for host in HOSTS}
    return [(t.host, t.check, t.severity) for t in judge(job, HOSTS, nodes, token="job 1")]


def test_equal_nodes_are_fit(job: Job) -> None:
    assert judged(job) == []


@pytest.mark.parametrize(
    ("changes", "check", "severity"),
    [
        ({"devices": ("NVIDIA H100 80GB HBM3",) * 7}, "devices", "error"),
        ({"device": "a100-sxm4-80gb"}, "devices", "error"),
        ({"token": "job 2"}, "shared directory", "error"),
        ({"free_bytes": {"run": 1 << 20, "shm": 1 << 38}}, "disk", "error"),
        ({"free_bytes": {"run": 1 << 44, "shm": 1 << 20}}, "disk", "warning"),
        ({"memlock_bytes": 65536}, "memlock", "error"),
        ({"open_files": 256}, "open files", "warning"),
        ({"variables": {"NCCL_SOCKET_IFNAME": "bond"}}, "interface", "error"),
        ({"variables": {"GLOO_SOCKET_IFNAME": "eth"}}, "interface", "error"),
        ({"variables": {"NCCL_IB_HCA": "rdmap"}}, "interface", "error"),
        ({"versions": {"torch": "2.12.0", "cuboid": "0.1.0", "driver": "570.1"}}, "torch", "error"),
        ({"clock_seconds": 1e9 + 90}, "clock", "warning"),
        ({"problems": ("GPU 3: 2 NVLinks are down",)}, "hardware", "warning"),
    ],
)
def test_one_trouble(job: Job, changes: dict[str, Any], check: str, severity: str) -> None:
    assert judged(job, **changes) == [("n2", check, severity)]


def test_ports_that_are_down_differ_from_the_others(job: Job) -> None:
    ports = tuple(Port(name=f"mlx5_{i}", state="down" if i == 3 else "active") for i in range(8))
    assert set(judged(job, ports=ports)) == {("n2", "links", "warning"), ("n2", "links", "error")}


def test_silent_node_is_named_and_excluded(job: Job) -> None:
    nodes = {host: facts_of(job, host) for host in ("n1", "n3")}
    troubles = judge(job, HOSTS, nodes, token="job 1")
    assert [(t.host, t.check) for t in troubles] == [("n2", "answer")]
    assert exclude_list(HOSTS, troubles) == "n2"


def test_wrong_on_every_node_leaves_none_out(job: Job) -> None:
    stale = {"variables": {"NCCL_SOCKET_IFNAME": 'a"b\\'}}
    nodes = {host: facts_of(job, host, **stale) for host in HOSTS}
    nodes["n2"] = nodes["n2"].model_copy(update={"devices": ()})
    troubles = judge(job, HOSTS, nodes, token="job 1")
    assert exclude_list(HOSTS, troubles) == "n2"
    assert verdict(HOSTS, troubles).startswith("every node: NCCL_SOCKET_IFNAME=a b  names no interface")
    assert verdict(HOSTS, troubles).endswith("(and 1 more)")
    assert exclude_list(("n2",), [t for t in troubles if t.host == "n2"]) == "n2"
    assert verdict(HOSTS, ()) == ""
    unlike = {host: facts_of(job, host, devices=("H100",) * n) for n, host in enumerate(HOSTS, start=5)}
    assert exclude_list(HOSTS, judge(job, HOSTS, unlike, token="job 1")) == "n1,n2,n3"
    full = {host: facts_of(job, host, free_bytes={"run": n, "shm": 1 << 38}) for n, host in enumerate(HOSTS)}
    assert exclude_list(HOSTS, judge(job, HOSTS, full, token="job 1")) == ""


@pytest.mark.parametrize(
    ("selector", "exact", "taken"),
    [
        ("eth", False, True),
        ("=eth", False, False),
        ("=eth0", False, True),
        ("^eth,lo", False, False),
        ("^docker", False, True),
        ("eth0:1,x", False, True),
        ("eth", True, False),
        ("eth0", True, True),
    ],
)
def test_interface_selectors(selector: str, exact: bool, taken: bool) -> None:
    assert selects(selector, ("lo", "eth0"), exact=exact) is taken


def test_this_node_tells_the_truth(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("job 7\n")
    facts = gather(tmp_path, tmp_path, environment={"NCCL_SOCKET_IFNAME": "lo", "OTHER": "x"})
    assert facts.token == "job 7"
    assert "lo" in facts.interfaces
    assert facts.variables == {"NCCL_SOCKET_IFNAME": "lo"}
    assert facts.free_bytes["run"] > 0
    write_facts(tmp_path, facts)
    assert read_facts(tmp_path) == {facts.host: facts}


def test_slow_or_hanging_network(job: Job) -> None:
    outer = job.plan.cluster.links[-1].device_bytes_per_second
    assert judge_collective(job, HOSTS, {"bytes_per_second": 0.81 * outer}) == ()
    (slow,) = judge_collective(job, HOSTS, {"bytes_per_second": 0.5 * outer})
    assert slow.severity == "warning"
    assert "50%" in slow.message
    (hung,) = judge_collective(job, HOSTS, None)
    assert hung.severity == "error"
    assert exclude_list(HOSTS, (slow,)) == ""
