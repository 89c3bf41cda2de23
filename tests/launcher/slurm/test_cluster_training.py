"""Real training on a real SLURM: torch over gloo between the nodes, launched by plan."""

from __future__ import annotations

import subprocess
from typing import Any

from launcher.run_directory import read_json_lines

STEPS = 30
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # sums in the same order, wherever the ranks are


def losses(run: Any) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in run.metrics()}


def hosts(run: Any) -> dict[str, str]:
    return {path.stem: path.read_text().split()[2] for path in run.path.glob("launch/ranks/*/rank-*")}


def test_warned_requeued_resumed_ends_with_the_same_bits(cluster: Any, runs: Any) -> None:
    """One layout twice: by srun on four nodes in one go, by torchrun on two nodes with a stop in between."""
    layout = {"tp": 1, "pp": 2, "dp": 2}
    whole = runs.create(
        "whole",
        plan=runs.tiny_plan(nodes=4, devices_per_node=1, **layout),
        steps=STEPS,
        stand_in=False,
        environment=ONE_THREAD,
    )
    cluster.launch(whole, process_model="srun")
    assert cluster.settle(whole, 400) == "finished"
    assert hosts(whole) == {f"rank-{rank}": f"n{rank + 1}" for rank in range(4)}

    broken = runs.create(
        "broken",
        plan=runs.tiny_plan(nodes=2, devices_per_node=2, **layout),
        steps=STEPS,
        stand_in=False,
        environment=ONE_THREAD,
    )
    (job,) = cluster.launch(broken, process_model="torchrun")
    cluster.wait(lambda: len(broken.metrics()) >= 3, 200, "some steps")
    subprocess.run(["timeout", "2", "scancel", "--batch", "--signal=USR1", job], check=False)
    assert cluster.settle(broken, 400) == "finished"
    assert hosts(broken) == {f"rank-{rank}": f"n{rank // 2 + 1}" for rank in range(4)}
    ends = [x for x in read_json_lines(broken.path / "launch" / "attempts.jsonl") if x["event"] == "end"]
    assert [(end["outcome"], end["decision"]) for end in ends] == [
        ("time-limit", "restart"),
        ("finished", "complete"),
    ]
    assert sorted(losses(broken)) == list(range(1, STEPS + 1))
    assert losses(broken)[STEPS].hex() == losses(whole)[STEPS].hex()
    assert losses(broken) == losses(whole)
