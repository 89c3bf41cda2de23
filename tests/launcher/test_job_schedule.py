"""`cuboid launch --schedule FILE`: proved, matched, priced, and part of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.cli import main
from launcher.job_schedule import with_schedule_file
from launcher.run_directory import create_run, open_run
from planner.costs import price
from planner.job import load_job

PLAN = """\
kind: plan
model: {layers: 4, hidden: 64, heads: 4, vocab: 256, seq_len: 32}
cluster: {preset: cpu-2}
layout: {pp: 2, global_batch: 2, precision: fp32}
"""
MINE = "0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "mine.csv").write_text(MINE)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "plan.yaml"


def test_it_becomes_part_of_the_run_with_its_price(plan: Path) -> None:
    job = with_schedule_file(load_job(plan), plan.parent / "mine.csv", costs=plan.parent / "costs.yaml")
    assert job.plan.layout.actions == tuple(MINE.splitlines())
    assert job.plan.estimate == price(job.plan.model, job.plan.cluster, job.plan.layout)
    run = create_run(plan.parent / "runs", job)
    assert (run.path / "schedule.csv").read_text() == MINE
    assert open_run(run.path).job() == job


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("0F0,0B0\n1F0,1B0\n", 2, "layout.global_batch: mine.csv runs 1 microbatches"),
        ("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", 3, "waits for ever"),
        ("0F0,0G0\n", 2, "'0G0' is not an action"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_written(
    plan: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, message: str
) -> None:
    (plan.parent / "mine.csv").write_text(text)
    words = [
        "launch",
        str(plan),
        "--schedule",
        str(plan.parent / "mine.csv"),
        "--runs",
        str(plan.parent / "runs"),
    ]
    assert main(words) == code
    assert message in capsys.readouterr().err
    assert not (plan.parent / "runs").exists()


def test_a_run_keeps_its_schedule(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(plan.parent / "runs", load_job(plan))
    assert main(["launch", str(run.path), "--resume", "--schedule", str(plan.parent / "mine.csv")]) == 2
    assert "--schedule is for new ones" in capsys.readouterr().err
