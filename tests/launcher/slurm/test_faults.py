"""Faults on a real SLURM: each ends as the policy says, within a stated time, with the cause named.

`CUBOID_FAULT_ROUNDS=5` runs every fault so many times (tests/benchmarks/slurm_faults.py does, and prints the
times). The trainer is a stand-in that checkpoints every second step; CUBOID_FAULT_TRAINER=runtime takes the
real one, which starts more slowly. The time that counts is from the fault to the first step of the next
attempt, or to the end of a job that must stay down.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from launcher.attempts import Attempt, read_attempts
from launcher.status import run_status

REAL = os.environ.get("CUBOID_FAULT_TRAINER") == "runtime"
STEP = {"TEST_STEP_SECONDS": "0.3"}
REAL_STEPS = 24  # the real trainer cannot go on without the ranks it lost, so a few are enough
RECOVERY_SECONDS = 90.0 if REAL else 45.0
DOWN_SECONDS = 30.0
Timed = Callable[[str, float, float], None]


def begin(runs: Any, steps: int, **options: Any) -> Any:
    if REAL:
        steps = min(steps, REAL_STEPS) if steps < 1000 else steps
        return runs.create(plan=runs.tiny_plan(), steps=steps, every=2, stand_in=False, **options)
    return runs.create(steps=steps, every=2, environment=STEP, **options)


def under_way(cluster: Any, run: Any, step: int = 5) -> None:
    cluster.wait(lambda: len(run.metrics()) >= step, 120, f"step {step}")


def kill(cluster: Any, host: str, pattern: str) -> None:
    pids = cluster.processes(host, pattern)
    assert pids, f"no {pattern} on {host}"
    cluster.on(host, "kill", "-9", str(pids[0]))


def recovered(run: Any, fault: float) -> float:
    """Seconds from the fault until the next attempt trained."""
    (again,) = [event["time"] for event in run.events() if event["event"] == "resumed"]
    return again - fault


def ended(cluster: Any, run: Any) -> tuple[Attempt, Attempt]:
    """Wait for the end of a run of two attempts, and check that nothing else was lost."""
    assert cluster.settle(run, 240) == "finished"
    first, last = read_attempts(run)
    assert (last.outcome, last.decision) == ("finished", "complete")
    whole_history(run)
    return first, last


def whole_history(run: Any, every: int = 2) -> None:
    """Nothing is lost but the steps since the last checkpoint, and no step is left out."""
    seen = [line["step"] for line in run.metrics()]
    back = [(a, b) for a, b in pairwise(seen) if b != a + 1]
    assert all(b == a // every * every + 1 or b == (a // every - 1) * every + 1 for a, b in back), seen
    assert sorted(set(seen)) == list(range(1, run.job().steps + 1))
    by_step: dict[int, float] = {}
    for line in run.metrics():
        assert by_step.setdefault(line["step"], line["loss"]) == line["loss"]


def test_killed_rank(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    run = begin(runs, 20)
    cluster.launch(run, process_model="srun")
    under_way(cluster, run)
    kill(cluster, "n2", "runtime.train --job.* --run")
    fault = time.time()
    first, _ = ended(cluster, run)
    assert (first.outcome, first.decision) == ("failed", "restart")
    # the victim, not those that fell over it
    assert first.first_failure and first.first_failure.rank in {2, 3}
    assert (first.first_failure.host, first.first_failure.status) == ("n2", 137)
    within("starting again", recovered(run, fault), RECOVERY_SECONDS)


def test_killed_torchrun(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    run = begin(runs, 24)
    cluster.launch(run, process_model="torchrun")
    under_way(cluster, run)
    kill(cluster, "n2", "torch.distributed.run")
    fault = time.time()
    first, _ = ended(cluster, run)
    assert (first.outcome, first.decision) == ("failed", "restart")
    assert first.first_failure and first.first_failure.name == "torchrun on n2"
    assert not cluster.processes("n2", "runtime.train")
    within("starting again", recovered(run, fault), RECOVERY_SECONDS)


def test_crashed_node(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    run = begin(runs, 60)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("crash", "n3")
    fault = time.time()
    try:
        moved(ended(cluster, run), "n[2,4]")
        within("moving to another node", recovered(run, fault), RECOVERY_SECONDS)
    finally:
        cluster.verb("boot", "n3")


def test_node_cut_off(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    run = begin(runs, 60)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("cut", "n3")
    fault = time.time()
    try:
        moved(ended(cluster, run), "n[2,4]")
        within("moving to another node", recovered(run, fault), RECOVERY_SECONDS)
    finally:
        cluster.verb("heal", "n3")
        cluster.wait(lambda: "mixed" in nodes("n3") or "idle" in nodes("n3"), 60, "n3 comes back")


def test_killed_slurmd(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    """Without its daemon a node is down for SLURM, so the job moves."""
    run = begin(runs, 60)
    cluster.launch(run, process_model="srun", exclude="n1")
    under_way(cluster, run)
    cluster.verb("kill-daemon", "n3")
    fault = time.time()
    try:
        moved(ended(cluster, run), "n[2,4]")
        within("moving to another node", recovered(run, fault), RECOVERY_SECONDS)
    finally:
        cluster.verb("boot", "n3")


def moved(attempts: tuple[Attempt, Attempt], where: str) -> None:
    """The first attempt lost n3, and says so; the second one runs on other nodes."""
    first, last = attempts
    assert (first.nodes, last.nodes) == ("n[2-3]", where)
    assert first.outcome in {"terminated", "interrupted"}
    assert "node n3 is down" in first.why


def nodes(host: str) -> str:
    out = subprocess.run(
        ["sinfo", "-h", "-N", "-p", "main", "-o", "%N %T"], capture_output=True, text=True, check=True
    )
    return next(line for line in out.stdout.splitlines() if line.startswith(host + " "))


def test_scancel(cluster: Any, runs: Any, turn: int, within: Timed) -> None:
    run = begin(runs, 1000)
    (job,) = cluster.launch(run, process_model="torchrun")
    under_way(cluster, run)
    subprocess.run(["scancel", job], check=True)
    fault = time.time()
    cluster.wait(lambda: cluster.state(job) == "CANCELLED", 60, "cancelled")
    cluster.wait(lambda: not cluster.processes("n1", "runtime.train"), 60, "no rank is left")
    within("ending", time.time() - fault, DOWN_SECONDS)
    time.sleep(1)
    assert cluster.state(job) == "CANCELLED"  # and does not rise again
    assert list((run.path / "checkpoints").glob("step-*/complete"))
    (only,) = read_attempts(run)
    assert (only.outcome, only.why) == ("terminated", "cancelled by scancel")


@pytest.fixture
def small_disk(cluster: Any) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=cluster.folder / "disks"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)


def test_full_disk(cluster: Any, runs: Any, small_disk: Path, turn: int, within: Timed) -> None:
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
    fault = time.time()
    cluster.wait(lambda: cluster.state(job) == "FAILED", 120, "failed")
    within("ending", time.time() - fault, DOWN_SECONDS)
    words = run_status(run).words  # from the run directory, or from the comment that SLURM keeps
    assert "disk-full" in words and "the disk of the run directory is full" in words
