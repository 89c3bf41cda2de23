"""Stop and save requests: agreed by all ranks, whichever was asked."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from planner.layout import Layout

SECONDS = 150.0  # a busy machine is slow to start; on a quiet one each test takes a few
LAYOUT = {"pp": 2, "global_batch": 4, "precision": "fp32"}


def events(run):
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_steps(run, count=1, seconds=SECONDS):
    deadline, path = time.monotonic() + seconds, run / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "no step in time"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_any_rank_saves_and_stops_all(make_run, train_ranks, number):
    run = make_run(Layout(**LAYOUT), steps=100000)
    training = train_ranks(run, 2)
    wait_for_steps(run)
    os.kill(training.processes[1].pid, number)
    assert training.wait(SECONDS) == [0, 0]
    *_, saved, stopped = events(run)
    assert (saved["event"], stopped["event"]) == ("checkpoint", "stopped")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert saved["step"] == stopped["step"] == steps[-1]
    assert (run / "checkpoints" / f"step-{steps[-1]:08d}" / "complete").exists()
    assert (run / "record.json").exists()


def test_the_save_switch_saves_and_goes_on(make_run, train_ranks):
    run = make_run(Layout(**LAYOUT), steps=100000)
    training = train_ranks(run, 2)
    wait_for_steps(run)
    (run / "SAVE").touch()
    deadline = time.monotonic() + SECONDS
    while not any(event["event"] == "checkpoint" for event in events(run)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    saved = events(run)[-1]["step"]
    wait_for_steps(run, saved + 2)
    (run / "STOP").touch()
    assert training.wait(SECONDS) == [0, 0]
    assert [event["event"] for event in events(run)] == ["started", "checkpoint", "checkpoint", "stopped"]
