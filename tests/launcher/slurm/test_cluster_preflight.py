"""The pre-flight on a real SLURM: nodes that are not what was planned, variables of another cluster."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from launcher.run_directory import read_json_lines

REAL = os.environ.get("CUBOID_FAULT_TRAINER") == "runtime"  # as in test_faults.py
REFUSAL_SECONDS = 30.0
TRAINED_SECONDS = 120.0 if REAL else 30.0


def a_run(runs: Any, name: str = "run") -> Any:
    return runs.create(name, plan=runs.tiny_plan(), stand_in=False) if REAL else runs.create(name)


def end(run: Any) -> dict[str, Any]:
    (line,) = [x for x in read_json_lines(run.path / "launch" / "attempts.jsonl") if x["event"] == "end"]
    return line


def test_node_with_fewer_devices(cluster: Any, runs: Any, turn: int, within: Any) -> None:
    """On processors a device is a rank slot; the second node has one core instead of two."""
    daemon = cluster.processes("n2", "^slurmd|/slurmd ")[0]
    cluster.on("n2", "taskset", "-cp", "0", str(daemon))
    try:
        run = a_run(runs)
        sent = time.time()
        (job,) = cluster.launch(run, process_model="srun", preflight="strict", nodelist="n1,n2")
        again = a_run(runs, "again")  # what the refusal asks for, sent at once
        cluster.launch(again, process_model="srun", preflight="strict", exclude="n2")
        assert cluster.settle(run, 60) == "preflight"
        within("the refusal", time.time() - sent, REFUSAL_SECONDS)
        assert end(run)["exit"] == "3"
        assert end(run)["why"].startswith("n2: 1 usable cores")
        text = (run.logs / f"slurm-{job}.log").read_text()
        assert "1 usable cores, the plan was made for 2" in text
        assert "--exclude n2" in text
        assert not run.events_path.exists()  # no rank was started
        assert cluster.settle(again, TRAINED_SECONDS) == "finished"
    finally:
        cluster.on("n2", "taskset", "-cp", "0-1", str(daemon))


def test_stale_variables_of_the_shell_are_dropped(
    cluster: Any, runs: Any, monkeypatch: Any, turn: int, within: Any
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib7")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "bond9")
    monkeypatch.setenv("NCCL_P2P_LEVEL", "NVL")
    run, sent = a_run(runs), time.time()
    kept = {"keep_environment": ("NCCL_P2P_LEVEL",), "nodelist": "n1,n2"}
    cluster.launch(run, process_model="srun", preflight="strict", **kept)
    assert cluster.settle(run, TRAINED_SECONDS) == "finished"  # gloo would not without its interface
    within("pre-flight and training", time.time() - sent, TRAINED_SECONDS)
    if not REAL:  # the stand-in writes down what it has inherited
        text = (run.logs / "rank-0.log").read_text()
        assert "IFNAME" not in text
        assert "NCCL_P2P_LEVEL=NVL" in text
    (folder,) = (run.path / "preflight").iterdir()  # nodes that are fit have said so
    assert {path.name for path in folder.glob("*.json")} == {"n1.json", "n2.json"}


def test_stale_variables_of_the_site_are_refused(cluster: Any, runs: Any, turn: int, within: Any) -> None:
    stale = {"NCCL_SOCKET_IFNAME": "ib7", "GLOO_SOCKET_IFNAME": "bond9"}
    run, sent = a_run(runs), time.time()
    (job,) = cluster.launch(run, process_model="srun", preflight="strict", environment=stale)
    assert cluster.settle(run, 60) == "preflight"
    within("the refusal", time.time() - sent, REFUSAL_SECONDS)
    text = " ".join((run.logs / f"slurm-{job}.log").read_text().split())
    assert end(run)["why"].startswith("every node: NCCL_SOCKET_IFNAME=ib7 names no interface")
    assert "--exclude" not in text  # other nodes would not help
    for name, value in stale.items():
        assert f"{name}={value} names no interface of this node" in text


def test_collective_test(cluster: Any, runs: Any) -> None:
    """The stand-in replaces the package of the trainer, so this one has to be the real one."""
    run = runs.create(plan=runs.tiny_plan(devices_per_node=1), steps=1, stand_in=False)
    cluster.launch(run, process_model="srun", preflight="warn", collective_test=True, preflight_seconds=200)
    (folder,) = cluster.wait(lambda: list((run.path / "preflight").glob("*")), 60, "a pre-flight")
    cluster.wait((folder / "collective.result").exists, 200, "a result")
    data = json.loads((folder / "collective.result").read_text())
    assert data["ranks"] == 2
    assert data["bytes_per_second"] > 1e6
