"""Attempt after attempt of a run on this machine, until it is finished, stopped, or stays down.

What a batch script does for a job on SLURM: it records every attempt with its outcome in
launch/attempts.jsonl, and decides by the same policy and in the same words whether there is another one.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from launcher.attempts import first_failure, process_ends, read_attempts, record
from launcher.launcher_process import launcher_file
from launcher.restart import Budget, Ending, decide
from launcher.run_directory import RunDirectory
from profiles.documents import write_text

DO_NOT_RESTART = 93
FULL_DISK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, in the words of attempts.jsonl; `ending` is None when that is that."""

    outcome: str
    why: str = ""
    ending: Ending | None = None


def supervise(
    run: RunDirectory,
    *,
    resume: bool,
    requeue: bool,
    retries: int,
    start: Callable[[str, bool], int],
    say: Callable[[str], None],
) -> int:
    """Run attempts and return the exit code of the last one.

    `start(attempt, resume)` runs one attempt to its end and returns its exit code; `say` is told of restarts.

    Raises:
        KeyboardInterrupt, BrokenPipeError, SystemExit: when `start` does, the latter two where what it writes
            is read no more; the attempt counts as stopped on request.
    """
    budget = Budget()
    with launcher_file(run):
        while True:
            before, seen = run.newest_checkpoint(), len(run.events())
            attempt = f"local.{len(read_attempts(run))}"
            record(run, attempt, "start", nodes=socket.gethostname(), checkpoint=before)
            try:
                code = start(attempt, resume)
            except (KeyboardInterrupt, BrokenPipeError, SystemExit) as stop:
                interrupted = isinstance(stop, KeyboardInterrupt)
                why, code = ("interrupted", 130) if interrupted else ("nobody reads the output any more", 141)
                _end(run, attempt, Outcome(outcome="stopped", why=why), "down", code)
                raise
            outcome, after = _outcome(run, attempt, code, seen), run.newest_checkpoint()
            if outcome.ending is None:
                _end(run, attempt, outcome, "complete" if outcome.outcome == "finished" else "down", code)
                return code
            decision = decide(
                outcome.ending, before=before, after=after, budget=budget, requeue=requeue, retries=retries
            )
            if not decision.again:
                last = Outcome(outcome=outcome.outcome, why=f"{outcome.why}; {decision.why}")
                _end(run, attempt, last, "down", code)
                return code
            _end(run, attempt, outcome, "restart", code)
            budget, resume = decision.budget, after > 0
            say(
                f"attempt {attempt} failed: {outcome.why}; starting again from step {after}"
                f" ({budget.failures} of {retries} retries)"
            )


def _outcome(run: RunDirectory, attempt: str, code: int, seen: int) -> Outcome:
    """Return how the attempt ended whose events are those after the first `seen`."""
    happened = {str(event.get("event")) for event in run.events()[seen:]}
    if code == 0 and "finished" in happened:
        return Outcome(outcome="finished")
    if code == 0:
        return Outcome(outcome="stopped", why="asked by STOP or a signal")
    ends = process_ends(run, attempt)
    if any(end.status == DO_NOT_RESTART for end in ends):
        return Outcome(outcome="do-not-restart", why="a rank said that it must not be started again")
    if shutil.disk_usage(run.path).free < FULL_DISK_BYTES:
        return Outcome(outcome="disk-full", why="the disk of the run directory is full")
    first = first_failure(ends)
    why = f"{first.name} {first.words()}" if first else f"torchrun ended with exit status {code}"
    killed = code < 0 or (first is not None and first.status > 128)
    return Outcome(outcome="failed", why=why, ending="killed" if killed else "failed")


def _end(run: RunDirectory, attempt: str, outcome: Outcome, decision: str, code: int) -> None:
    facts = {"exit": code, "why": outcome.why, "checkpoint": run.newest_checkpoint()}
    with suppress(OSError):  # a full disk loses the record, not the run's own words
        record(run, attempt, "end", outcome=outcome.outcome, decision=decision, **facts)
        if decision != "restart":
            write_text(run.path / "launch" / "verdict", outcome.outcome + "\n")
