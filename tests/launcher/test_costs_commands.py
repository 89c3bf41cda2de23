"""estimate, explain and validate on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main

PLAN = """kind: plan
version: 1
model: {preset: gpt3-22b}
cluster: {preset: selene, nodes: 1}
layout: {tp: 8, global_batch: 4, microbatch: 4, sequence_parallel: true, recompute: selective}
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().out


@pytest.fixture
def plan(tmp_path: Path) -> str:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    return str(file)


def test_estimate_prints_the_contract(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "estimate", plan, "--json")
    data: dict[str, Any] = json.loads(text)
    assert code == 0
    assert set(data["time"]) == {
        "forward", "backward", "recompute", "tp_comm", "pp_comm", "dp_comm", "optimizer", "bubble",
    }  # fmt: skip
    assert sum(data["time"].values()) == pytest.approx(data["step_seconds"])
    assert {"tokens_per_second", "model_flops_per_device", "mfu", "hfu", "fits", "provenance"} <= set(data)
    assert set(data["memory"]["per_stage"][0]) == {
        "rank", "weights", "gradients", "optimizer", "activations", "workspace", "total",
    }  # fmt: skip


def test_estimate_reads_well(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "estimate", plan)
    assert code == 0
    assert "MFU" in text
    assert "fits" in text


def test_explain_shows_one_field(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "explain", plan, "time.tp_comm")
    assert code == 0
    assert "time.tp_comm" in text
    assert "nvlink3" in text
    code, text = run(capsys, "explain", plan, "--json")
    assert len(json.loads(text)["fields"]) == 24


def test_explain_refuses_an_unknown_field(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "explain", plan, "speed")[0] == 2
    assert main(["explain", plan, "step_second"]) == 2
    assert "did you mean 'step_seconds'?" in capsys.readouterr().err


def test_validate_prints_rows_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = Path(__file__).parents[2] / "profiles" / "published" / "korthikanti2022.yaml"
    code, text = run(capsys, "validate", "--records", str(published), "--json")
    data = json.loads(text)
    assert code == 0
    assert len(data["rows"]) == 9
    assert {"id", "measured_step_seconds", "predicted_step_seconds", "error", "skipped"} <= set(
        data["rows"][0]
    )
    assert data["summary"]["count"] == 9
    code, text = run(capsys, "validate", "--records", str(published))
    assert code == 0
    assert "korthikanti2022" in text
    lines = text.splitlines()
    for assumed in {note for row in data["rows"] for note in row["assumed"]}:
        assert sum(line.strip().endswith(f": {assumed}") for line in lines) == 1  # numbered, and said once


def test_validate_refuses_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "validate", "--records", str(tmp_path / "none.yaml"))[0] == 2
