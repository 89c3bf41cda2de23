"""Attempts of a run on this machine: recorded with reasons, started again as the policy says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.attempts import read_attempts
from launcher.launcher_process import launcher_of
from launcher.run_directory import RunDirectory, create_run
from launcher.status import run_status
from launcher.supervise import supervise
from planner.job import Job
from planner.plan import plan_from_data

MODEL = {"layers": 4, "hidden": 32, "heads": 4, "vocab": 256, "seq_len": 32}
LAYOUT = {"pp": 2, "global_batch": 8, "precision": "fp32"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    data = {"kind": "plan", "model": MODEL, "cluster": {"preset": "cpu-2"}, "layout": LAYOUT}
    return create_run(tmp_path, Job(name="first", plan=plan_from_data(data, Path())))


Attempt = tuple[int, dict[int, int], int, str]  # exit code, rank → status, newest checkpoint, last event


class Script:
    """A start that does what it is told, attempt after attempt."""

    def __init__(self, run: RunDirectory, *attempts: Attempt) -> None:
        self.run, self.left, self.resumed = run, list(attempts), list[bool]()

    def __call__(self, attempt: str, resume: bool) -> int:
        self.resumed.append(resume)
        code, ranks, step, event = self.left.pop(0)
        folder = self.run.path / "launch" / "ranks" / attempt
        folder.mkdir(parents=True)
        for order, (rank, status) in enumerate(ranks.items()):
            (folder / f"rank-{rank}").write_text(f"started 1.0 here 7\nended 2.{order} {status}\n")
        if step:
            checkpoint = self.run.path / "checkpoints" / f"step-{step:08d}"
            checkpoint.mkdir(exist_ok=True)
            (checkpoint / "complete").write_text("")
        with self.run.events_path.open("a") as stream:
            stream.write(json.dumps({"time": 1.0, "event": event}) + "\n")
        assert launcher_of(self.run) is not None
        return code


def go(run: RunDirectory, *attempts: Attempt, **options: Any) -> tuple[int, list[str], Script]:
    said: list[str] = []
    say: Callable[[str], None] = said.append
    start = Script(run, *attempts)
    options = {"resume": False, "requeue": True, "retries": 3} | options
    return supervise(run, start=start, say=say, **options), said, start


def decisions(run: RunDirectory) -> list[tuple[str | None, str | None]]:
    return [(attempt.outcome, attempt.decision) for attempt in read_attempts(run)]


def test_a_failure_after_a_checkpoint_is_resumed(run: RunDirectory) -> None:
    code, said, start = go(run, (1, {1: 137, 0: 1}, 4, "started"), (0, {0: 0, 1: 0}, 9, "finished"))
    assert code == 0
    assert start.resumed == [False, True]
    assert decisions(run) == [("failed", "restart"), ("finished", "complete")]
    first, _ = read_attempts(run)
    assert first.first_failure and (first.first_failure.rank, first.first_failure.status) == (1, 137)
    assert "rank 1 on here killed by SIGKILL" in first.why
    assert "starting again from step 4" in said[0] and "1 of 3 retries" in said[0]
    assert run_status(run).phase == "finished"
    assert launcher_of(run) is None


def test_without_progress_it_stays_down(run: RunDirectory) -> None:
    code, _, start = go(run, (1, {0: 1}, 0, "started"))
    assert (code, start.resumed) == (1, [False])
    assert decisions(run) == [("failed", "down")]
    status = run_status(run)
    assert status.phase == "failed"
    assert status.words == "failed: rank 0 on here exit status 1; no checkpoint progress since step 0"


def test_the_budget_is_used_up(run: RunDirectory) -> None:
    failing: list[Attempt] = [(1, {0: 1}, step, "started") for step in (2, 4, 6)]
    assert go(run, *failing, retries=2)[0] == 1
    assert decisions(run) == [("failed", "restart"), ("failed", "restart"), ("failed", "down")]
    assert "3 failed attempts, 2 retries were allowed" in run_status(run).words


def test_nothing_is_started_again_unless_asked(run: RunDirectory) -> None:
    assert go(run, (1, {0: 1}, 2, "started"), requeue=False)[0] == 1
    assert "no restart was asked for" in run_status(run).words


def test_a_rank_can_forbid_it(run: RunDirectory) -> None:
    assert go(run, (1, {0: 93, 1: 1}, 2, "failed"))[0] == 1
    assert decisions(run) == [("do-not-restart", "down")]


def test_a_killed_torchrun_counts_as_killed(run: RunDirectory) -> None:
    """No rank could write how it ended; a machine may fail once between two checkpoints."""
    attempts: list[Attempt] = [(-9, {}, 0, "started"), (-9, {}, 0, "started")]
    assert go(run, *attempts)[0] == -9
    assert decisions(run) == [("failed", "restart"), ("failed", "down")]
    assert "torchrun ended with exit status -9" in run_status(run).words


def test_asked_to_stop_it_stops(run: RunDirectory) -> None:
    assert go(run, (0, {0: 0}, 3, "stopped"))[0] == 0
    assert decisions(run) == [("stopped", "down")]
    assert run_status(run).phase == "cancelled"


@pytest.mark.parametrize("reason", [KeyboardInterrupt, BrokenPipeError, SystemExit])
def test_an_interrupt_is_recorded_and_passed_on(run: RunDirectory, reason: type[BaseException]) -> None:
    def interrupted(attempt: str, resume: bool) -> int:
        raise reason

    with pytest.raises(reason):
        supervise(run, resume=False, requeue=True, retries=3, start=interrupted, say=print)
    assert decisions(run) == [("stopped", "down")]
    assert launcher_of(run) is None
