"""Failures of one rank: named, with the cell, soon, and without anything left running."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from planner.layout import Layout
from runtime.executor import Executor
from runtime.watchdog import Watchdog

SECONDS = 150.0  # a busy machine is slow to start; on a quiet one each test takes a few
LAYOUT = {"pp": 2, "dp": 2, "global_batch": 8, "precision": "fp32"}


def at_cell(text, act):
    """Return a patch that does `act` where rank 1 comes to the cell `text` in its third step.

    From there on four seconds without movement are too long.
    """

    def patch(rank):
        look = Watchdog._look

        def impatient(self):
            if self._recorder.step >= 3:
                self._timeout_seconds = 4.0
            look(self)

        Watchdog._look = impatient
        if rank != 1:
            return
        run, seen = Executor._run, []

        def broken(self, action):
            if str(action) == text:
                seen.append(action)
                if len(seen) == 3:
                    act()
            return run(self, action)

        Executor._run = broken

    return patch


def failures(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "failed"]


def raise_error():
    raise ValueError("a broken cell")


def test_a_rank_that_raises_ends_the_job_and_is_named(make_run, train_ranks):
    run = make_run(Layout(**LAYOUT), steps=1000)
    assert train_ranks(run, 4, patch=at_cell("0B1", raise_error)).wait(SECONDS) == [1] * 4
    (event,) = failures(run)
    assert (event["rank"], event["step"], event["cell"]) == (1, 3, "0B1")
    assert event["error"] == "ValueError: a broken cell"
    log = (run / "logs" / "rank-1.log").read_text()
    assert log.index("rank 1 failed: step 3, in 0B1") < log.index("Traceback")
    for rank in (0, 2, 3):
        assert "; was step 3, " in (run / "logs" / f"rank-{rank}.log").read_text()


def test_a_killed_rank_is_named(make_run, train_ranks):
    run = make_run(Layout(**LAYOUT), steps=1000)
    patch = at_cell("0B1", lambda: os.kill(os.getpid(), signal.SIGKILL))
    codes = train_ranks(run, 4, patch=patch).wait(SECONDS)
    assert codes == [1, -signal.SIGKILL, 1, 1]
    (event,) = failures(run)
    assert event["rank"] == 1
    assert "the process is gone" in event["error"]


@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_a_hanging_rank_is_named_with_every_rank_s_cell(make_run, train_ranks, how):
    run = make_run(Layout(**LAYOUT), steps=1000)
    act = (lambda: time.sleep(600)) if how == "sleep" else (lambda: os.kill(os.getpid(), signal.SIGSTOP))
    training = train_ranks(run, 4, patch=at_cell("0B1", act))
    if how == "stop":  # the others end; this one cannot even be told
        training.processes.pop(1)
    assert set(training.wait(SECONDS)) == {1}
    (event,) = failures(run)
    assert event["rank"] == 1
    if how == "sleep":
        assert (event["step"], event["cell"]) == (3, "0B1")
    else:  # what it last published
        assert "; silent for" in event["traceback"]
    assert "nothing has moved" in event["error"]
    for rank in range(4):
        assert f"rank {rank}: step" in event["traceback"]


def test_a_rank_whose_parent_dies_ends(make_run, train_ranks):
    run = make_run(Layout(global_batch=2, precision="fp32"), steps=100000)
    os.environ.update(RANK="0", WORLD_SIZE="1")
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        training = train_ranks(run, 1)
        os.write(write, str(training.processes[0].pid).encode())
        time.sleep(600)
        os._exit(0)
    child = int(os.read(read, 20))
    deadline = time.monotonic() + SECONDS
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the rank trains on without its parent")
