"""The commands of a user against a real SLURM: dry run, launch, status, logs, cancel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.run_directory import open_run
from planner.plan import save_plan


@pytest.fixture
def words(runs: Any, tmp_path: Path) -> list[str]:
    save_plan(tmp_path / "plan.yaml", runs.plan())
    here = [
        "launch",
        str(tmp_path / "plan.yaml"),
        "--on",
        "slurm",
        "--runs",
        str(runs.root),
        "--name",
        "first",
    ]
    options = ["--no-exclusive", "--process-model", "srun", "--time-limit", "10:00", "--preflight", "off"]
    return [*here, *options, "--environment", f"PYTHONPATH={runs.stand_in_path}", "--json"]


def test_the_dry_run_is_what_is_sent(
    cluster: Any, runs: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--steps", "5", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert not runs.root.exists()  # nothing is written
    assert shown["cost"]["expected_start"][:2] == "20"  # a date, from sbatch --test-only
    assert shown["cost"]["device_hours"] > 0
    assert [(p["rank"], p["node"], p["device"]) for p in shown["placement"]] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 0),
        (3, 1, 1),
    ]
    assert main([*words, "--steps", "5"]) == 0
    sent = json.loads(capsys.readouterr().out)
    (job,) = sent["jobs"]
    cluster.jobs.append(job)
    batch = subprocess.run(
        ["scontrol", "write", "batch_script", job, "-"], capture_output=True, check=True
    ).stdout
    assert batch == shown["script"].encode()
    run = open_run(Path(sent["run"]))
    assert (run.path / "launch" / "worker.sh").read_text() == shown["worker"]
    assert cluster.settle(run) == "finished"
    assert main(["status", sent["run"], "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)["runs"]
    assert (status["phase"], status["step"], status["where"]) == ("finished", 5, "slurm")
    assert main(["logs", sent["run"]]) == 0
    assert "rank 0 of 4 on n1" in capsys.readouterr().out


def test_cancel_saves_first(cluster: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--steps", "1000"]) == 0
    sent = json.loads(capsys.readouterr().out)
    cluster.jobs += sent["jobs"]
    run = open_run(Path(sent["run"]))
    cluster.wait(run.metrics, 60, "a first step")
    assert main(["status", sent["run"], "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)["runs"]
    assert status["phase"] == "running"
    assert status["seconds_left"] > 0
    again = ["launch", sent["run"], "--resume", "--on", "slurm"]
    assert main(again) == 2  # two jobs must not share a run directory
    assert "is not over" in capsys.readouterr().err
    assert main(["cancel", sent["run"]]) == 0
    assert cluster.settle(run) == "stopped"
    assert list((run.path / "checkpoints").glob("step-*/complete"))


def test_a_refusal_leaves_nothing_behind(
    cluster: Any, runs: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--partition", "nowhere"]) == 1
    assert "invalid partition" in capsys.readouterr().err.lower()
    assert not (runs.root / "first").exists()
    assert main([*words, "--comment", "a\nb"]) == 2
    assert not (runs.root / "first").exists()


def test_cancel_now_takes_pending_jobs_out(
    cluster: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--nodelist", "n1,n2", "--array", "3"]) == 0
    sent = json.loads(capsys.readouterr().out)
    cluster.jobs += sent["jobs"]
    assert main(["cancel", sent["run"], "--now"]) == 0
    left = ["squeue", "--noheader", "--format=%T"]
    cluster.wait(
        lambda: (
            "RUNNING" not in (text := subprocess.run(left, capture_output=True, text=True, check=True).stdout)
            and "PENDING" not in text
        ),
        30,
        "an empty queue",
    )
