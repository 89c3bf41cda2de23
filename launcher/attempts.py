"""The attempts of a run, as they were written down; and which process of an attempt failed first."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.run_directory import RunDirectory, read_json_lines

OUTCOMES = {
    "finished": "all steps done",
    "stopped": "stopped on request",
    "time-limit": "saved before the time limit",
    "preempted": "pre-empted, saved",
    "terminated": "ended by SLURM",
    "failed": "a rank failed",
    "do-not-restart": "a rank refused its configuration",
    "disk-full": "the disk is full",
    "preflight": "nodes are not fit",
    "wrong-allocation": "not the planned number of nodes",
    "interrupted": "ended without a word",
    "environment": "the environment could not be set up",
    "rendezvous": "no rendezvous",
}


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """How a rank ended, or a node's torchrun (`rank` is None); `status` as a shell counts it."""

    rank: int | None
    host: str
    time: float
    status: int

    @property
    def name(self) -> str:
        """Which process, and where."""
        return f"{'torchrun' if self.rank is None else f'rank {self.rank}'} on {self.host}"

    def words(self) -> str:
        """Return what the status means."""
        if self.status > 128:
            number = self.status - 128
            name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else str(number)
            hint = ": out of memory, or killed by hand" if name == "SIGKILL" else ""
            return f"killed by {name}{hint}"
        if self.status == 93:
            return "refused its configuration (status 93)"
        return f"exit status {self.status}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a job. `outcome` is None while it runs, or when it was killed without a word."""

    name: str
    nodes: str
    started: float
    ended: float | None = None
    outcome: str | None = None
    decision: str | None = None
    why: str = ""
    first_failure: ProcessEnd | None = None


def read_attempts(run: RunDirectory) -> tuple[Attempt, ...]:
    """Return all attempts in order."""
    found: dict[str, Attempt] = {}
    for line in read_json_lines(run.path / "launch" / "attempts.jsonl"):
        name, event = str(line.get("attempt")), line.get("event")
        moment = float(line.get("time", 0))
        if event == "start":
            found[name] = Attempt(name=name, nodes=str(line.get("nodes", "")), started=moment)
            continue
        earlier = found.get(name, Attempt(name=name, nodes="", started=moment))
        if event == "terminated":  # the last words of a script that SLURM gave no time for others
            found[name] = replace(
                earlier, ended=moment, outcome=event, decision="left", why=str(line.get("why", ""))
            )
        if event == "end":
            failed = line.get("outcome") in {"failed", "do-not-restart", "disk-full"}
            found[name] = Attempt(
                name=name,
                nodes=earlier.nodes,
                started=earlier.started,
                ended=moment,
                outcome=str(line.get("outcome")),
                decision=str(line.get("decision")),
                why=str(line.get("why", "")),
                first_failure=first_failure(process_ends(run, name)) if failed else None,
            )
    return tuple(found.values())


def record(run: RunDirectory, attempt: str, event: str, **fields: object) -> None:
    """Write down an event of an attempt, as the batch script does: every value is text."""
    texts = {name: str(value) for name, value in fields.items()}
    line = json.dumps({"time": time.time(), "attempt": attempt, "event": event} | texts)
    with (run.path / "launch" / "attempts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def process_ends(run: RunDirectory, attempt: str) -> list[ProcessEnd]:
    """Return the ranks of an attempt, and torchrun of its nodes, that have ended."""
    ends = []
    for path in (run.path / "launch" / "ranks" / attempt).glob("*-*"):
        end = _process_end(path)
        if end:
            ends.append(end)
    return ends


def first_failure(ends: Sequence[ProcessEnd]) -> ProcessEnd | None:
    """Return the process that failed first; those after it fell over it."""
    failed = [end for end in ends if end.status != 0]
    return min(failed, key=lambda end: end.time) if failed else None


def _process_end(path: Path) -> ProcessEnd | None:
    host = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["started"] and len(words) > 2:
            host = words[2]
        elif words[:1] == ["ended"] and len(words) == 3:
            kind, _, number = path.name.partition("-")
            rank = int(number) if kind == "rank" else None
            return ProcessEnd(rank=rank, host=host, time=float(words[1]), status=int(words[2]))
    return None
