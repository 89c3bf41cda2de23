"""Faults on a real SLURM: each ends as the policy says, within a stated time, with the cause named.

`CUBOID_FAULT_ROUNDS=5` runs every fault so many times (tests/benchmarks/slurm_faults.py does, and prints the
times). The trainer is a stand-in that checkpoints every second step; CUBOID_FAULT_TRAINER=runtime takes the
real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from launcher.run_directory import read_json_lines

STEP = {"TEST_STEP_SECONDS": "0.3"}
REAL = os.environ.get("CUBOID_FAULT_TRAINER") == "runtime"
REAL_STEPS = 3 if REAL else 1  # its steps are shorter
PATIENCE = 4.0 if REAL else 1.0


def ends(run: Any) -> list[dict[str, Any]]:
    lines = read_json_lines(run.path / "launch" / "attempts.jsonl")
    return [line for line in lines if line["event"] == "end"]


def begin(runs: Any, steps: int, **options: Any) -> Any:
    if REAL:
        return runs.create(
            plan=runs.tiny_plan(), steps=steps * REAL_STEPS, every=2, stand_in=False, **options
        )
    return runs.create(steps=steps, every=2, environment=STEP, **options)


def allocations(run: Any) -> list[str]:
    lines = read_json_lines(run.path / "launch" / "attempts.jsonl")
    return [line["nodes"] for line in lines if line["event"] == "start"]


def under_way(cluster: Any, run: Any, step: int = 5) -> None:
    cluster.wait(lambda: len(run.metrics()) >= step, 60 * PATIENCE, f"step {step}")


def kill(cluster: Any, host: str, pattern: str) -> None:
    pids = cluster.processes(host, pattern)
    assert pids, f"no {pattern} on {host}"
    cluster.on(host, "kill", "-9", str(pids[0]))


def whole_history(run: Any, steps: int, every: int = 2) -> None:
    """Nothing is lost but the steps since the last checkpoint, and no step is left out."""
    seen = [line["step"] for line in run.metrics()]
    back = [(a, b) for a, b in pairwise(seen) if b != a + 1]
    assert all(b == a // every * every + 1 or b == (a // every - 1) * every + 1 for a, b in back), seen
    assert sorted(set(seen)) == list(range(1, steps * REAL_STEPS + 1))
    by_step: dict[int, float] = {}
    for line in run.metrics():
        assert by_step.setdefault(line["step"], line["loss"]) == line["loss"]


def test_killed_rank(cluster: Any, runs: Any, turn: int) -> None:
    run = begin(runs, 20)
    cluster.launch(run, process_model="srun")
    under_way(cluster, run)
    kill(cluster, "n2", "runtime.train --job.* --run")
    assert cluster.settle(run, 60 * PATIENCE) == "finished"
    first, last = ends(run)
    assert (first["outcome"], first["decision"], first["code"]) == ("failed", "restart", "137")
    assert first["rank"] in {"2", "3"}  # one of those on n2: the victim, not those that fell over it
    assert last["outcome"] == "finished"
    whole_history(run, 20)


def test_killed_torchrun(cluster: Any, runs: Any, turn: int) -> None:
    run = begin(runs, 30)
    cluster.launch(run, process_model="torchrun")
    under_way(cluster, run)
    kill(cluster, "n2", "torch.distributed.run")
    assert cluster.settle(run, 90 * PATIENCE) == "finished"
    assert [(end["outcome"], end["decision"]) for end in ends(run)] == [
        ("failed", "restart"),
        ("finished", "complete"),
    ]
    assert not cluster.processes("n2", "runtime.train")
    whole_history(run, 30)


def test_crashed_node(cluster: Any, runs: Any, turn: int) -> None:
    run = begin(runs, 60)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("crash", "n3")
    try:
        assert cluster.settle(run, 90 * PATIENCE) == "finished"
        assert allocations(run) == ["n[2-3]", "n[2,4]"]
        whole_history(run, 60)
    finally:
        cluster.verb("boot", "n3")


def test_node_cut_off(cluster: Any, runs: Any, turn: int) -> None:
    run = begin(runs, 60)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("cut", "n3")
    try:
        assert cluster.settle(run, 90 * PATIENCE) == "finished"
        assert allocations(run) == ["n[2-3]", "n[2,4]"]
        whole_history(run, 60)
    finally:
        cluster.verb("heal", "n3")
        cluster.wait(lambda: "mixed" in nodes("n3") or "idle" in nodes("n3"), 60, "n3 comes back")


def nodes(host: str) -> str:
    out = subprocess.run(
        ["sinfo", "-h", "-N", "-p", "main", "-o", "%N %T"], capture_output=True, text=True, check=True
    )
    return next(line for line in out.stdout.splitlines() if line.startswith(host + " "))


def test_killed_slurmd(cluster: Any, runs: Any, turn: int) -> None:
    """Without its daemon a node is down for SLURM, so the job moves."""
    run = begin(runs, 40)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("kill-daemon", "n3")
    try:
        assert cluster.settle(run, 120 * PATIENCE) == "finished"
    finally:
        cluster.verb("boot", "n3")
    whole_history(run, 40)


def test_scancel(cluster: Any, runs: Any, turn: int) -> None:
    run = begin(runs, 1000)
    (job,) = cluster.launch(run, process_model="torchrun")
    under_way(cluster, run)
    subprocess.run(["scancel", job], check=True)
    cluster.wait(lambda: cluster.state(job) == "CANCELLED", 20, "cancelled")
    cluster.wait(lambda: not cluster.processes("n1", "runtime.train"), 20, "no rank is left")
    time.sleep(2)
    assert cluster.state(job) == "CANCELLED"  # and does not rise again
    assert list((run.path / "checkpoints").glob("step-*/complete"))


@pytest.fixture
def small_disk(cluster: Any) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=cluster.folder / "disks"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)


def test_full_disk(cluster: Any, runs: Any, small_disk: Path, turn: int) -> None:
    run = begin(runs, 1000, root=small_disk)
    (job,) = cluster.launch(run, process_model="srun")
    under_way(cluster, run, 3)
    with (small_disk / "ballast").open("wb") as ballast:
        try:
            while True:
                ballast.write(bytes(65536))
                ballast.flush()
        except OSError:
            pass
    cluster.wait(lambda: cluster.state(job) == "FAILED", 60, "failed")
    comment = subprocess.run(
        ["scontrol", "show", "job", job], capture_output=True, text=True, check=True
    ).stdout
    assert "disk" in comment and "full" in comment
