"""A plan made with a cost table is priced with it again, wherever both lie."""

import json
import shutil
from pathlib import Path

import pytest

from launcher.cli import main
from profiles.costs import CostTable, LayerCost
from profiles.documents import write_yaml
from profiles.model import ModelSpec
from profiles.presets import cluster_preset

MODEL = ModelSpec(name="tiny", layers=2, hidden=32, heads=4, vocab=64, seq_len=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a processor and costs of one rank alone, ten times what any preset would say."""
    layers = tuple(
        LayerCost(
            component=component,
            phase=phase,
            microbatch=microbatch,
            tp=1,
            seq_len=16,
            precision="fp32",
            seconds=0.1 * microbatch,
            spread_seconds=0.0,
            samples=9,
            activation_bytes=1000 * microbatch,
        )
        for component in ("block", "embedding", "head")
        for phase in ("forward", "backward")
        for microbatch in (1, 2)
    )
    table = CostTable(machine="here", device="a processor", model=MODEL, concurrent_ranks=1, layers=layers)
    made = tmp_path / "made"
    made.mkdir()
    write_yaml(made / "costs.yaml", table)
    write_yaml(made / "cluster.yaml", cluster_preset("cpu-2"))
    write_yaml(made / "model.yaml", MODEL)
    return made


def step_seconds(capsys: pytest.CaptureFixture[str], *words: str) -> float:
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    return float(json.loads(out)["step_seconds"])


def test_the_plans_own_costs_are_taken_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {name: str(folder / f"{name}.yaml") for name in ("model", "cluster", "costs", "plan")}
    made = ("--model", names["model"], "--cluster", names["cluster"], "--costs", names["costs"])
    assert main(["plan", *made, "--devices", "1", "--global-batch", "2", "-o", names["plan"], "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["plans"][0]
    # The table holds fp32 only: a search in another precision would borrow its times.
    assert best["layout"]["precision"] == "fp32"
    moved = folder.rename(folder.parent / "moved")
    plan = str(moved / "plan.yaml")
    assert step_seconds(capsys, "estimate", plan) == best["estimate"]["step_seconds"]
    table = shutil.move(moved / "costs.yaml", moved / "else.yaml")
    assert main(["estimate", plan, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "priced with" in err
    assert "costs.yaml, which is not there" in " ".join(err.split())
    assert json.loads(out)["step_seconds"] < best["estimate"]["step_seconds"] / 2
    assert step_seconds(capsys, "estimate", plan, "--costs", str(table)) == best["estimate"]["step_seconds"]
