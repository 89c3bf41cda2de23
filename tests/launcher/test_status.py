"""status, logs and cancel from what a run leaves behind, with SLURM's answers made up."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.attempts import read_attempts
from launcher.cli import main
from launcher.run_directory import RunDirectory, create_run
from launcher.slurm.client import JobInfo, parse_job
from launcher.slurm.states import STATES, phase_of
from launcher.status import run_status
from planner.job import Job
from planner.plan import plan_from_data
from profiles.errors import DependencyError

CLUSTER = {
    "device": {
        "name": "cpu",
        "vendor": "cpu",
        "memory_bytes": 1 << 30,
        "memory_bytes_per_second": 1e10,
        "flops_per_second": {"fp32": 1e10},
    },
    "devices_per_node": 4,
    "links": [
        {"name": "memory", "kind": "shared_memory", "bytes_per_second": 1e9, "latency_seconds": 1e-5},
    ],
}
# squeue(1) and the job_states documentation
DOCUMENTED = """BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY
PENDING PREEMPTED RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING
SPECIAL_EXIT STAGE_OUT STOPPED SUSPENDED TIMEOUT LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    layout = {"tp": 2, "pp": 2, "global_batch": 4, "precision": "fp32"}
    plan = plan_from_data(
        {"kind": "plan", "model": {"preset": "bytes-1m"}, "cluster": CLUSTER, "layout": layout}, Path()
    )
    return create_run(tmp_path / "runs", Job(name="first", plan=plan, steps=100))


def lines(path: Path, *records: dict[str, Any]) -> None:
    with path.open("a") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)


def submitted(run: RunDirectory, *jobs: str) -> None:
    (run.path / "launch" / "jobs").write_text("".join(f"{job}\n" for job in jobs))


def answers(**states: str) -> Callable[[str], JobInfo | None]:
    def ask(job: str) -> JobInfo | None:
        state = states.get(f"job{job}")
        return (
            JobInfo(job_id=job, state=state, reason="Resources", fields={"Restarts": "2"}) if state else None
        )

    return ask


def failed_attempt(run: RunDirectory) -> None:
    start = {"time": 100, "attempt": "7.0", "event": "start", "nodes": "n[1-2]"}
    end = {
        "time": 160,
        "attempt": "7.0",
        "event": "end",
        "outcome": "failed",
        "decision": "down",
        "why": "no progress",
    }
    lines(run.path / "launch" / "attempts.jsonl", start, end)
    folder = run.path / "launch" / "ranks" / "7.0"
    folder.mkdir(parents=True)
    for rank, time, status in ((0, 150.2, 1), (1, 150.1, 137), (2, 150.3, 1), (3, 150.2, 0)):
        (folder / f"rank-{rank}").write_text(f"started 101.0 n{rank // 2 + 1} 55\nended {time} {status}\n")
        (run.logs / f"rank-{rank}.log").write_text(f"words of rank {rank}\n")


def test_every_documented_state_is_known() -> None:
    for state in DOCUMENTED.split():
        assert phase_of(state)[0] != "unknown"
    assert set(STATES) == set(DOCUMENTED.split())
    assert phase_of("CANCELLED by 1000")[0] == "cancelled"
    assert phase_of("NEW_STATE")[0] == "unknown"


def test_scontrol_answer_is_taken_apart() -> None:
    line = (
        "JobId=12 JobName=a b UserId=root(0) JobState=PENDING Reason=Resources Restarts=1 Partition=main"
        " Comment=cuboid: failed, down: no retries NodeList=(null)"
    )
    info = parse_job(line)
    assert (info.job_id, info.state, info.reason, info.restarts) == ("12", "PENDING", "Resources", 1)
    assert info.fields["Comment"] == "cuboid: failed, down: no retries"


def test_live_run(run: RunDirectory) -> None:
    submitted(run, "7")
    metrics = [
        {"step": s, "loss": 2.5, "step_seconds": 0.5, "tokens_per_second": 800.0} for s in range(1, 41)
    ]
    lines(run.metrics_path, *metrics)
    status = run_status(run, ask=answers(job7="RUNNING"))
    assert (status.phase, status.step, status.steps, status.tokens_per_second) == ("running", 40, 100, 800.0)
    assert status.seconds_left == pytest.approx(30.0)
    assert "started again 2" in status.words


def test_the_furthest_link_of_a_chain_speaks(run: RunDirectory) -> None:
    submitted(run, "7", "8", "9")
    status = run_status(run, ask=answers(job7="COMPLETED", job8="RUNNING", job9="PENDING"))
    assert status.phase == "running"
    assert "job 8" in status.words


def test_verdict_wins_over_a_forgetful_controller(run: RunDirectory) -> None:
    submitted(run, "7")
    failed_attempt(run)
    (run.path / "launch" / "verdict").write_text("failed\n")
    status = run_status(run, ask=answers())
    assert (status.phase, status.words) == ("failed", "failed: no progress")


def test_unreachable_controller_is_said(run: RunDirectory) -> None:
    submitted(run, "7")

    def ask(job: str) -> JobInfo | None:
        raise DependencyError("scontrol is not installed here")

    assert run_status(run, ask=ask).phase == "unknown"


def test_first_failing_rank_is_not_the_cascade(run: RunDirectory) -> None:
    failed_attempt(run)
    (attempt,) = read_attempts(run)
    failure = attempt.first_failure
    assert failure and (failure.rank, failure.host, failure.status) == (1, "n1", 137)
    assert failure.words() == "killed by SIGKILL: out of memory, or killed by hand"


def test_a_script_that_was_killed_has_said_why(run: RunDirectory) -> None:
    """After SIGTERM SLURM may not leave the batch script the time to end its attempt."""
    start = {"time": 100, "attempt": "7.0", "event": "start", "nodes": "n[1-2]"}
    lines(
        run.path / "launch" / "attempts.jsonl",
        start,
        {"time": 160, "attempt": "7.0", "event": "terminated", "why": "node n2 is down"},
    )
    (attempt,) = read_attempts(run)
    assert (attempt.outcome, attempt.decision, attempt.ended) == ("terminated", "left", 160.0)
    assert attempt.why == "node n2 is down"


def test_logs_show_it_first(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    failed_attempt(run)
    assert main(["logs", str(run.path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "words of rank 1\n"
    assert "failed first, on n1" in " ".join(shown.err.split())
    assert main(["logs", str(run.path), "--rank", "2"]) == 0
    assert capsys.readouterr().out == "words of rank 2\n"
    assert main(["logs", str(run.path), "--rank", "9"]) == 2
    assert main(["logs", str(run.path), "--batch"]) == 2


def test_status_command(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    lines(run.events_path, {"time": 1.0, "event": "started"}, {"time": 2.0, "event": "finished"})
    failed_attempt(run)
    assert main(["status", str(run.path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "finished" in text
    assert "rank 1 on n1 failed first" in text
    assert main(["status", "--runs", str(run.path.parent), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["runs"]
    assert one["attempts"][0]["first_failure"]["rank"] == 1
    assert main(["status", "--runs", str(run.path / "none")]) == 2


def test_suggested_commands_can_be_pasted(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    failed_attempt(run)
    odd = run.path.rename(run.path.parent / "it's $(touch HACKED)")
    assert main(["status", str(odd)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert shlex.split(out.rpartition("Next: ")[2])[:3] == ["cuboid", "logs", str(odd)]


def test_local_runs_without_slurm(run: RunDirectory) -> None:
    assert run_status(run).words == "has not started"
    lines(run.events_path, {"time": 1.0, "event": "started"})
    assert run_status(run).phase == "failed"
    lines(run.events_path, {"time": 2.0, "event": "failed", "rank": 3, "error": "ValueError: x"})
    assert run_status(run).words == "rank 3 failed: ValueError: x"
    lines(run.events_path, {"time": 3.0, "event": "stopped", "reason": "STOP"})
    assert run_status(run).phase == "cancelled"


def test_cancel_of_a_run_that_is_over(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", str(run.path)]) == 0
    assert "Nothing runs" in capsys.readouterr().out
    assert not run.stop_path.exists()


def test_cancel_now_asks_the_launcher_not_its_ranks(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rank that ended by itself would be started again."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    rank = subprocess.Popen([*sleep, "--run", str(run.path)])
    launcher = subprocess.Popen(sleep)
    try:
        started = psutil.Process(launcher.pid).create_time()
        (run.path / "launch" / "launcher").write_text(f"{launcher.pid} {started}\n")
        assert run_status(run).phase == "running"
        assert main(["launch", str(run.path), "--resume"]) == 2
        assert "runs on this machine" in capsys.readouterr().err
        assert main(["cancel", str(run.path), "--now"]) == 0
        assert not psutil.pid_exists(launcher.pid)
        assert rank.poll() is None
    finally:
        for process in (rank, launcher):
            process.kill()
            process.wait()


def test_a_launcher_between_two_attempts_runs(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no rank then, and yet nobody else may start the run, and STOP is for the next attempt."""
    lines(run.events_path, {"event": "failed", "rank": 1, "error": "killed", "time": 1.0})
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = psutil.Process(launcher.pid).create_time()
        (run.path / "launch" / "launcher").write_text(f"{launcher.pid} {started}\n")
        assert run_status(run).phase == "running"
        assert main(["launch", str(run.path), "--resume"]) == 2
        assert main(["cancel", str(run.path)]) == 0
        assert "Stopping" in capsys.readouterr().out
        assert run.stop_path.exists()
    finally:
        launcher.kill()
        launcher.wait()
    assert run_status(run).phase == "failed"


def test_torchrun_that_failed_first_is_named(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    failed_attempt(run)
    folder = run.path / "launch" / "ranks" / "7.0"
    (folder / "node-1").write_text("started 100.5 n2 50\nended 149.5 137\n")
    (run.logs / "slurm-7.log").write_text("words of torchrun\n")
    assert main(["status", str(run.path)]) == 0
    assert "torchrun on n2 failed first: killed by SIGKILL" in " ".join(capsys.readouterr().out.split())
    assert main(["logs", str(run.path)]) == 0
    assert capsys.readouterr().out == "words of torchrun\n"
