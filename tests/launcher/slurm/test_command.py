"""`cuboid launch --on slurm` on a machine without SLURM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from planner.plan import save_plan


@pytest.fixture
def words(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    save_plan(tmp_path / "plan.yaml", runs.gpu_plan())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUBOID_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return [
        "launch",
        str(tmp_path / "plan.yaml"),
        "--on",
        "slurm",
        "--runs",
        str(tmp_path / "runs"),
        "--name",
        "a",
    ]


def test_launch_says_what_is_missing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 4
    assert "sbatch is not installed here" in capsys.readouterr().err
    assert not list((tmp_path / "runs").iterdir())


def test_dry_run_needs_no_slurm(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    (tmp_path / "site.yaml").write_text("kind: site\npartition: gpu\nprice_per_device_hour: 2.0\n")
    monkeypatch.setenv("CUBOID_SITE", str(tmp_path / "site.yaml"))
    assert main([*words, "--dry-run", "--json", "--steps", "1000"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"name": "partition", "value": "gpu", "origin": "site"} in data["settings"]
    grace = next(row for row in data["settings"] if row["name"] == "grace_seconds")
    assert grace["origin"] == "plan" and f"B:USR1@{grace['value']}\n" in data["script"]
    assert [found["name"] for found in data["environment"]] == ["SBATCH_PARTITION"]
    cost = data["cost"]
    assert cost["expected_start"].startswith("unknown")
    assert cost["device_hours"] == pytest.approx(16 * 1000 * cost["step_seconds"] / 3600)
    assert cost["price"] == pytest.approx(2.0 * cost["device_hours"])
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert data["script"].splitlines()[3] in text
    assert "Nothing was sent" in text
    assert not (tmp_path / "runs").exists()


def test_job_file_wins_over_the_site(runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_plan(tmp_path / "plan.yaml", runs.gpu_plan())
    (tmp_path / "job.yaml").write_text("kind: job\nplan: plan.yaml\nslurm: {partition: long, retries: 9}\n")
    (tmp_path / "site.yaml").write_text("kind: site\npartition: gpu\naccount: team\n")
    words = ["launch", str(tmp_path / "job.yaml"), "--on", "slurm", "--dry-run", "--json", "--retries", "1"]
    assert main([*words, "--site", str(tmp_path / "site.yaml")]) == 0
    rows = {
        row["name"]: (row["value"], row["origin"]) for row in json.loads(capsys.readouterr().out)["settings"]
    }
    assert rows["partition"] == ("long", "job")
    assert rows["account"] == ("team", "site")
    assert rows["retries"] == ("1", "command line")
