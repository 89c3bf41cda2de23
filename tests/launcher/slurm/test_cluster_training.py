"""Real training on a real SLURM: torch over gloo between the nodes, launched by plan, all jobs at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from launcher.attempts import read_attempts

STEPS = 20
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # sums in the same order, wherever the ranks are
LAYOUT = {"tp": 1, "pp": 2, "dp": 2}


@pytest.fixture(scope="module")
def jobs(shared_cluster: Any, shared_runs: Any) -> Iterator[dict[str, Any]]:
    """One training three times: in one go, with a warning in between, and with a node taken away."""
    cluster, runs = shared_cluster, shared_runs

    def launch(name: str, plan: Any, *, every: int | None = None, **options: Any) -> tuple[Any, str]:
        run = runs.create(name, plan=plan, steps=STEPS, every=every, stand_in=False, environment=ONE_THREAD)
        (job,) = cluster.launch(run, **options)
        return run, job

    alone = runs.tiny_plan(nodes=2, devices_per_node=1, tp=1, pp=2)
    pair = runs.tiny_plan(nodes=2, devices_per_node=2, **LAYOUT)
    four = runs.tiny_plan(nodes=4, devices_per_node=1, **LAYOUT)
    others = ",".join(sorted(cluster.hosts - {"n5", "n6"}))
    apart = {"exclude": others, "elastic": True, "min_nodes": 1, "every": 2}
    cluster.wait(lambda: idle() >= {"n5", "n6"}, 30, "two nodes for the elastic job, which would take one")
    elastic, first = launch("elastic", alone, process_model="srun", **apart)
    broken, second = launch("broken", pair, process_model="torchrun", nodelist="n1,n2")
    whole, _ = launch("whole", four, process_model="srun", nodelist="n1,n2,n3,n4")
    update = ["scontrol", "update", "NodeName=n6"]
    cluster.wait(lambda: read_attempts(elastic), 60, "a start")
    subprocess.run([*update, "State=drain", "Reason=test"], check=True)  # it ends what it runs, and no more
    try:
        warn(first)
        cluster.wait(lambda: len(broken.metrics()) >= 2, 300, "some steps")
        warn(second)
        yield {"whole": whole, "broken": broken, "elastic": elastic}
    finally:
        subprocess.run([*update, "State=resume"], check=True)


def idle() -> set[str]:
    words = ["sinfo", "--noheader", "--Node", "--partition=main", "--states=idle", "--format=%N"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def warn(job: str) -> None:
    """Send the batch script what SLURM sends it before the time limit."""
    subprocess.run(["timeout", "2", "scancel", "--batch", "--signal=USR1", job], check=False)


def losses(run: Any) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in run.metrics()}


def hosts(run: Any) -> dict[str, str]:
    return {path.stem: path.read_text().split()[2] for path in run.path.glob("launch/ranks/*/rank-*")}


def endings(run: Any) -> list[tuple[str | None, str | None]]:
    return [(attempt.outcome, attempt.decision) for attempt in read_attempts(run)]


def test_warned_requeued_resumed_ends_with_the_same_bits(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    """One layout twice: by srun on four nodes in one go, by torchrun on two nodes with a stop in between."""
    whole, broken = jobs["whole"], jobs["broken"]
    assert shared_cluster.settle(whole, 400) == "finished"
    assert hosts(whole) == {f"rank-{rank}": f"n{rank + 1}" for rank in range(4)}
    assert shared_cluster.settle(broken, 400) == "finished"
    assert hosts(broken) == {f"rank-{rank}": f"n{rank // 2 + 1}" for rank in range(4)}
    assert endings(broken) == [("time-limit", "restart"), ("finished", "complete")]
    assert sorted(losses(broken)) == list(range(1, STEPS + 1))
    assert losses(broken)[STEPS].hex() == losses(whole)[STEPS].hex()
    assert losses(broken) == losses(whole)


def test_elastic_goes_on_in_another_layout(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    """Two nodes, then one: planned again, and resumed from the checkpoint of the old layout."""
    whole, elastic = jobs["whole"], jobs["elastic"]
    assert shared_cluster.settle(elastic, 400) == "finished"
    first, last = read_attempts(elastic)
    assert (first.nodes, last.nodes) == ("n[5-6]", "n5")
    assert (first.outcome, first.decision) == ("time-limit", "restart")
    assert [event["step"] > 0 for event in elastic.events() if event["event"] == "resumed"] == [True]
    assert elastic.plan().layout.world_size == 1
    assert shared_cluster.settle(whole, 400) == "finished"
    assert losses(elastic) == pytest.approx(losses(whole), rel=1e-5)  # fp32: sums in another order
