"""`cuboid launch` on this machine, with real torchrun: to the end, interrupted, resumed, broken, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.cli import main

PLAN = """\
kind: plan
model: {layers: 4, hidden: 32, heads: 4, vocab: 256, seq_len: 32}
cluster: {preset: cpu-2}
layout: {tp: 1, pp: 2, dp: 1, microbatch: 2, global_batch: 8, precision: fp32}
"""
CUBOID = [sys.executable, "-c", "from launcher.entry import entry; entry()"]
START_SECONDS = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def cuboid(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CUBOID, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def ranks_of(run: Path) -> list[psutil.Process]:
    """All processes that work on this run, found by their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(run) in word for word in words) and process.pid != os.getpid():
            found.append(process)
    return found


def write_stand_in_job(folder: Path, *, steps: int) -> None:
    """Lay job.yaml: real torchrun, and the trainer without torch that the tests of SLURM use."""
    package = folder / "stand-in" / "runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copy(Path(__file__).parent / "slurm" / "stand_in_train.py", package / "train.py")
    (folder / "job.yaml").write_text(
        f"kind: job\nplan: plan.yaml\nsteps: {steps}\ncheckpoint: {{every_steps: 2}}\n"
        f"environment: {{PYTHONPATH: {package.parent}, TEST_STEP_SECONDS: '0.1'}}\n"
    )


@pytest.fixture
def started(folder: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A run of many steps that has done its third; of the stand-in where a test asks for it."""
    if getattr(request, "param", "") == "stand-in":
        write_stand_in_job(folder, steps=100000)
        words = ["job.yaml"]
    else:
        words = ["plan.yaml", "--steps", "100000"]
    words += ["--runs", str(folder / "runs"), "--name", "long", "--no-requeue"]
    # In the background of a shell SIGINT is ignored, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*CUBOID, "launch", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = folder / "runs" / "long" / "metrics.jsonl"
    deadline = time.monotonic() + START_SECONDS
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.1)
    yield process
    process.kill()
    process.communicate()
    for left in ranks_of(folder / "runs" / "long"):
        left.kill()


def test_ctrl_c_saves_leaves_no_process_and_the_run_goes_on(
    folder: Path, started: subprocess.Popen[str]
) -> None:
    """Goes on to its end, that is, where it leaves a record and can be reported."""
    run = folder / "runs" / "long"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert re.search(
        r"Step [1-9]\d* is saved\. Next: cuboid launch \S+/long --resume\ncuboid: interrupted\n$", said
    )
    assert ranks_of(run) == []
    assert list((run / "checkpoints").iterdir())
    steps = len(losses(run)) + 10
    job = run / "job.yaml"
    job.write_text(job.read_text().replace("steps: 100000", f"steps: {steps}"))
    assert cuboid(folder, "launch", str(run)).returncode == 2
    resumed = cuboid(folder, "launch", str(run), "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["finished"]
    assert json.loads((run / "events.jsonl").read_text().splitlines()[-1])["event"] == "finished"
    assert len(losses(run)) == steps
    assert losses(run)[-1] < losses(run)[0]
    report = json.loads(cuboid(folder, "report", str(run), "--json", "--html", "page.html").stdout)
    measured = {row["name"]: row["measured"] for row in report["rows"]}
    parts = report["measured"]["time"].values()
    assert sum(parts) == pytest.approx(measured["step time"], rel=1e-6)
    assert report["predicted"]["step_seconds"] > 0
    page = (folder / "page.html").read_text()
    assert "Predicted against measured" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_killed_rank_ends_the_run_and_is_named(folder: Path, started: subprocess.Popen[str]) -> None:
    run = folder / "runs" / "long"
    workers = [p for p in ranks_of(run) if "runtime.train" in p.cmdline()]
    victim = next(p for p in workers if p.environ().get("RANK") == "1")
    victim.kill()
    killed = time.monotonic()
    _, shown = started.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert started.returncode == 1
    assert "rank 1" in shown.split("Logs of every rank")[0]
    assert ranks_of(run) == []


def test_a_killed_rank_is_restarted_from_the_checkpoint(folder: Path) -> None:
    """The policy of a job on SLURM, here: resumed once, every step done, and the attempts on record."""
    write_stand_in_job(folder, steps=40)
    launch = [*CUBOID, "launch", "job.yaml", "--runs", str(folder / "runs"), "--name", "again"]
    process = subprocess.Popen(launch, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run = folder / "runs" / "again"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not list(run.glob("checkpoints/step-*/complete")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        status = json.loads(cuboid(folder, "status", str(run), "--json").stdout)["runs"][0]
        assert status["phase"] == "running"
        victim = next(p for p in ranks_of(run) if "--run" in p.cmdline() and p.environ().get("RANK") == "1")
        victim.kill()
        _, shown = process.communicate(timeout=START_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, shown
    assert "starting again from step" in shown
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 41))
    status = json.loads(cuboid(folder, "status", str(run), "--json").stdout)["runs"][0]
    assert (status["phase"], status["where"]) == ("finished", "local")
    first, last = status["attempts"]
    assert (first["outcome"], first["decision"], last["outcome"]) == ("failed", "restart", "finished")
    assert "rank 1 on" in first["why"] and "killed by SIGKILL" in first["why"]
    assert ranks_of(run) == []


@pytest.mark.parametrize("started", ["stand-in"], indirect=True)
def test_a_killed_torchrun_leaves_no_rank_behind(folder: Path, started: subprocess.Popen[str]) -> None:
    run = folder / "runs" / "long"
    agent = next(p for p in ranks_of(run) if "torch.distributed.run" in p.cmdline())
    agent.kill()
    started.communicate(timeout=60)
    assert started.returncode == 1
    assert ranks_of(run) == []


@pytest.mark.parametrize(
    ("plan", "words", "code", "message"),
    [
        (
            PLAN.replace("heads: 4", "heads: 4, kv_heads: 3"),
            (),
            2,
            "model.kv_heads: 3 does not divide 4 heads",
        ),
        (PLAN.replace("tp: 1", "tp: 3"), (), 2, "plan.yaml:4:10: layout.tp: 3 does not divide 4 heads"),
        (
            PLAN.replace("global_batch: 8", "global_batch: 7"),
            (),
            2,
            "layout.global_batch: 7 is not a multiple",
        ),
        (PLAN.replace("pp: 2", "pp: 8"), (), 2, "layout.pp: pp · chunks = 8 · 1 = 8 stages for 4 layers"),
        (PLAN.replace("tp: 1", "tpp: 1"), (), 2, "layout.tpp: unknown key; did you mean 'tp'?"),
        (PLAN.replace("seq_len: 32", "seq_len: long"), (), 2, "model.seq_len: must be a valid integer"),
        (PLAN.replace("fp32", "fp8"), (), 2, "precision"),
        (PLAN.replace("fp32", "fp32, schedule: 2f2b"), (), 2, "2f2b"),
        (PLAN, ("--data", "absent.txt"), 2, "absent.txt does not exist"),
        (PLAN, ("--data", "empty.txt"), 2, "empty.txt is empty"),
        (PLAN, ("--data", "short.txt"), 2, "short.txt holds 20 bytes of text, one sequence needs"),
        (PLAN, ("--name", "../up"), 2, "run name '../up'"),
        (PLAN, ("--name", "a b", "--dry-run"), 2, "run name 'a b'"),
        (PLAN, ("--steps", "0"), 2, "--steps"),
        (PLAN, ("--partition", "gpu"), 2, "--partition: only together with --on slurm"),
        (PLAN.replace("cpu-2", "dgx-h100"), (), 3, "0 devices, the plan puts 2 ranks on a node"),
        ("kind: plan\n", (), 2, "is required"),
        ("", (), 2, "plan.yaml:1:1"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    folder: Path,
    plan: str,
    words: tuple[str, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "plan.yaml").write_text(plan)
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("too short a text. ..")
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    assert main(["launch", "plan.yaml", *words]) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("cuboid: ")
    assert shown.out == ""
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_for_machines_is_one_document(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["--runs", "else where", "--name", "x", "--steps", "3", "--dry-run", "--json"]
    assert main(["launch", "plan.yaml", *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["run"], shown["steps"], shown["retries"]) == ("else where/x", 3, 3)
    assert [place["pp"] for place in shown["ranks"]] == [0, 1]
    assert not (folder / "else where").exists()


def test_without_torch_no_run_directory_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["launch", str(folder / "plan.yaml"), "--runs", str(folder / "none"), "--preflight", "off"]
    assert main(words) == 4
    assert "pip install '.[runtime]'" in capsys.readouterr().err
    assert not (folder / "none").exists()
