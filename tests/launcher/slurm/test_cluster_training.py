"""Real training on a real SLURM: torch over gloo between the nodes, launched by plan."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from launcher.run_directory import read_json_lines
from planner.plan import plan_from_data
from profiles.documents import plain

TINY = {
    "layers": 4,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 4,
    "ffn_hidden": 64,
    "gated_mlp": False,
    "vocab": 256,
    "seq_len": 32,
    "tied_embeddings": True,
    "position": "learned",
    "norm": "layernorm",
}


def tiny(plan: Any) -> Any:
    data = plain(plan)
    return plan_from_data({**data, "model": TINY}, None)


def final(run: Any) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in run.metrics()}


@pytest.mark.parametrize("process_model", ["torchrun", "srun"])
def test_training_over_two_nodes(cluster: Any, runs: Any, process_model: str) -> None:
    run = runs.create(plan=tiny(runs.plan()), steps=4, stand_in=False)
    cluster.launch(run, process_model=process_model)
    assert cluster.settle(run, 180) == "finished"
    hosts = {path.stem: path.read_text().split()[2] for path in run.path.glob("launch/ranks/*/rank-*")}
    assert hosts == {"rank-0": "n1", "rank-1": "n1", "rank-2": "n2", "rank-3": "n2"}
    assert sorted(final(run)) == [1, 2, 3, 4]


def test_warned_requeued_resumed_ends_with_the_same_bits(cluster: Any, runs: Any) -> None:
    plan = tiny(runs.plan(nodes=4, devices_per_node=1, pp=2, dp=2))
    whole = runs.create("whole", plan=plan, steps=400, stand_in=False)
    cluster.launch(whole, process_model="srun")
    assert cluster.settle(whole, 180) == "finished"
    run = runs.create("broken", plan=plan, steps=400, stand_in=False)
    (job,) = cluster.launch(run, process_model="srun")
    cluster.wait(lambda: len(run.metrics()) > 20, 120, "some steps")
    subprocess.run(["timeout", "2", "scancel", "--batch", "--signal=USR1", job], check=False)
    assert cluster.settle(run, 180) == "finished"
    ends = [x for x in read_json_lines(run.path / "launch" / "attempts.jsonl") if x["event"] == "end"]
    assert [(end["outcome"], end["decision"]) for end in ends] == [
        ("time-limit", "restart"),
        ("finished", "complete"),
    ]
    assert final(run)[400].hex() == final(whole)[400].hex()
    assert final(run) == final(whole)
