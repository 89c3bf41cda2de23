"""Faults on a real SLURM: each ends as the policy says, within a stated time, with the cause named.

`CUBOID_FAULT_ROUNDS=5` runs every fault so many times (tests/benchmarks/slurm_faults.py does, and prints the
times). The trainer is a stand-in that checkpoints every second step, and all faults strike at once, on nodes
of their own. CUBOID_FAULT_TRAINER=runtime takes the real trainer, and one fault after the other. The time
that counts is from the fault to the first step of the next attempt, or to the end of a job that stays down.
The stand-in then trains to its last step; the real trainer, whose speed is the machine's, is stopped after
three more checkpoints.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from launcher.attempts import Attempt, read_attempts
from launcher.status import run_status

REAL = os.environ.get("CUBOID_FAULT_TRAINER") == "runtime"
STEP = {"TEST_STEP_SECONDS": "0.3"}
RECOVERY_SECONDS = 120.0 if REAL else 60.0
DOWN_SECONDS = 30.0
# fault → how the ranks are started, the nodes it may have, steps of the stand-in: so many that they are not
# done before SLURM has noticed
JOBS: dict[str, tuple[str, str, int]] = {
    "killed rank": ("srun", "n1,n2", 20),
    "killed torchrun": ("torchrun", "n1,n2", 20),
    "scancel": ("torchrun", "n1,n2", 1000),
    "full disk": ("srun", "n1,n2", 1000),
    "crashed node": ("srun", "n3,n4,n5", 60),
    "node cut off": ("srun", "n6,n7,n8", 60),
    "killed slurmd": ("srun", "n9,n10,n11", 60),
}


@dataclass
class Struck:
    """A run, its job, and when the fault struck it."""

    run: Any
    job: str
    fault: float = 0.0


class Faults:
    """Launches jobs, waits until they train, and injects their faults; each once in a turn."""

    def __init__(self, cluster: Any, runs: Any, disk: Path) -> None:
        self.cluster, self._runs, self._disk = cluster, runs, disk
        self._struck: dict[str, Struck] = {}

    def __getitem__(self, name: str) -> Struck:
        if name not in self._struck:
            self.strike([name] if REAL else list(JOBS))
        return self._struck[name]

    def strike(self, names: list[str]) -> None:
        """Launch these jobs, and inject each one's fault once it has done five steps."""
        for name in names:
            for host in JOBS[name][1].split(","):
                self.cluster.wait(lambda host=host: usable(host) or resume(host), 60, f"{host} is back")
        waiting = {name: self._launch(name) for name in names}
        self._struck |= waiting
        self.cluster.wait(lambda: self._strike_ready(waiting) or not waiting, 240, "five steps of every job")

    def _strike_ready(self, waiting: dict[str, Struck]) -> None:
        for name in [name for name, struck in waiting.items() if len(struck.run.metrics()) >= 5]:
            struck = waiting.pop(name)
            self._inject(name, struck)
            struck.fault = time.time()

    def _launch(self, name: str) -> Struck:
        model, hosts, steps = JOBS[name]
        options: dict[str, Any] = {"root": self._disk} if name == "full disk" else {}
        if REAL:
            steps, plan = 100000, self._runs.tiny_plan(devices_per_node=1)
            options |= {"plan": plan, "stand_in": False}
        else:
            options["environment"] = STEP
        run = self._runs.create(name.replace(" ", "-"), steps=steps, every=2, **options)
        others = ",".join(sorted(self.cluster.hosts - set(hosts.split(","))))
        (job,) = self.cluster.launch(run, process_model=model, exclude=others)
        return Struck(run=run, job=job)

    def _inject(self, name: str, struck: Struck) -> None:
        path = str(struck.run.path)
        if name == "killed rank":
            self._kill("n2", f"runtime.train --job {path}/")
        elif name == "killed torchrun":
            self._kill("n2", f"torch.distributed.run .*{path}/")
        elif name == "scancel":
            subprocess.run(["scancel", struck.job], check=True)
        elif name == "full disk":
            fill(self._disk)
        else:
            verb, host = {
                "crashed node": ("crash", "n4"),
                "node cut off": ("cut", "n7"),
                "killed slurmd": ("kill-daemon", "n10"),
            }[name]
            self.cluster.verb(verb, host)

    def _kill(self, host: str, pattern: str) -> None:
        pids = self.cluster.processes(host, pattern)
        assert pids, f"no {pattern} on {host}"
        self.cluster.on(host, "kill", "-9", str(pids[0]))

    def mend(self) -> None:
        for name, verb, host in (
            ("crashed node", "boot", "n4"),
            ("node cut off", "heal", "n7"),
            ("killed slurmd", "boot", "n10"),
        ):
            if name in self._struck:
                self.cluster.verb(verb, host)

    def finished(self, name: str, within: Callable[[str, float, float], None]) -> tuple[Attempt, Attempt]:
        """Wait for the end of a run of two attempts; nothing was lost but steps since the last checkpoint."""
        struck = self[name]
        if REAL:
            self.cluster.wait(lambda: saved_after_resuming(struck.run) >= 3, 240, "going on")
            struck.run.stop_path.write_text("")
        ending = ("stopped", "down") if REAL else ("finished", "complete")
        assert self.cluster.settle(struck.run, 240) == ending[0]
        first, last = read_attempts(struck.run)
        assert (last.outcome, last.decision) == ending
        whole_history(struck.run)
        (again,) = [event["time"] for event in struck.run.events() if event["event"] == "resumed"]
        within("training again", again - struck.fault, RECOVERY_SECONDS)
        return first, last


def usable(host: str) -> bool:
    return state(host) in {"mixed", "idle"}


def state(host: str) -> str:
    words = ["sinfo", "--noheader", f"--nodes={host}", "--partition=main", "--format=%T"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def resume(host: str) -> None:
    """Do what an administrator does: SLURM drains a node whose tasks, cut off, did not end in time."""
    if state(host).startswith("drain"):
        update = ["scontrol", "update", f"NodeName={host}", "State=resume"]
        subprocess.run(update, capture_output=True, check=False)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb") as ballast:
        try:
            while True:
                ballast.write(bytes(65536))
                ballast.flush()
        except OSError:
            pass


def saved_after_resuming(run: Any) -> int:
    """Return how many checkpoints the last attempt has made since it took one up; 0 before that."""
    events = [event["event"] for event in run.events()]
    after = events[::-1].index("resumed") if "resumed" in events else 0
    return events[len(events) - after :].count("checkpoint")


def whole_history(run: Any, every: int = 2) -> None:
    """No step is left out, none but those since the last checkpoint is done again, and to the same loss."""
    seen = [line["step"] for line in run.metrics()]
    back = [(a, b) for a, b in pairwise(seen) if b != a + 1]
    assert all(b == a // every * every + 1 or b == (a // every - 1) * every + 1 for a, b in back), seen
    assert sorted(set(seen)) == list(range(1, (seen[-1] if REAL else run.job().steps) + 1))
    by_step: dict[int, float] = {}
    for line in run.metrics():
        assert by_step.setdefault(line["step"], line["loss"]) == line["loss"]


@pytest.fixture(scope="module")
def faults(shared_cluster: Any, shared_runs: Any, turn: int) -> Iterator[Faults]:
    disk = Path(tempfile.mkdtemp(dir=shared_cluster.folder / "disks"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    faults = Faults(shared_cluster, shared_runs.below(f"turn-{turn}"), disk)
    try:
        yield faults
    finally:
        faults.mend()
        subprocess.run(["umount", "-l", str(disk)], check=True)
        shutil.rmtree(disk)


def test_killed_rank(faults: Faults, turn: int, within: Any) -> None:
    first, _ = faults.finished("killed rank", within)
    assert (first.outcome, first.decision) == ("failed", "restart")
    assert first.first_failure and first.first_failure.rank is not None
    # the victim, not those that fell over it
    assert (first.first_failure.host, first.first_failure.status) == ("n2", 137)


def test_killed_torchrun(faults: Faults, turn: int, within: Any) -> None:
    first, _ = faults.finished("killed torchrun", within)
    assert (first.outcome, first.decision) == ("failed", "restart")
    assert first.first_failure and first.first_failure.name == "torchrun on n2"
    assert not faults.cluster.processes("n2", f"runtime.train --job {faults['killed torchrun'].run.path}")


@pytest.mark.parametrize(
    ("fault", "before", "lost", "after"),
    [
        ("crashed node", "n[3-4]", "n4", "n[3,5]"),
        ("node cut off", "n[6-7]", "n7", "n[6,8]"),
        ("killed slurmd", "n[9-10]", "n10", "n[9,11]"),
    ],
    ids=["crashed", "cut off", "without slurmd"],
)
def test_lost_node(
    faults: Faults, turn: int, within: Any, fault: str, before: str, lost: str, after: str
) -> None:
    """A node without power, network or daemon is down for SLURM, so the job moves, and says why."""
    first, last = faults.finished(fault, within)
    assert (first.nodes, last.nodes) == (before, after)
    # "failed" when a rank fell over the lost one before SLURM ended the job
    assert first.outcome in {"terminated", "interrupted", "failed"}
    assert f"node {lost} is down" in first.why


def test_scancel(faults: Faults, turn: int, within: Any) -> None:
    struck, cluster = faults["scancel"], faults.cluster
    cluster.wait(lambda: cluster.state(struck.job) == "CANCELLED", 60, "cancelled")
    pattern = f"runtime.train --job {struck.run.path}"
    cluster.wait(lambda: not cluster.processes("n1", pattern), 60, "no rank is left")
    (only,) = read_attempts(struck.run)
    assert only.ended
    within("ending", only.ended - struck.fault, DOWN_SECONDS)
    time.sleep(1)
    assert cluster.state(struck.job) == "CANCELLED"  # and does not rise again
    assert list((struck.run.path / "checkpoints").glob("step-*/complete"))
    assert (only.outcome, only.why) == ("terminated", "cancelled by scancel")


def test_full_disk(faults: Faults, turn: int, within: Any) -> None:
    struck, cluster = faults["full disk"], faults.cluster
    cluster.wait(lambda: cluster.state(struck.job) == "FAILED", 120, "failed")
    ended = cluster.ended(struck.job)
    within("ending", ended - struck.fault, DOWN_SECONDS)
    words = run_status(struck.run).words  # from the run directory, or from the comment that SLURM keeps
    assert "disk-full" in words and "the disk of the run directory is full" in words
