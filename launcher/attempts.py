"""The attempts of a run on SLURM, as the batch script wrote them down; and which rank failed first."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
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
class RankEnd:
    """How one rank of an attempt ended; `status` as a shell counts it (128 + signal)."""

    rank: int
    host: str
    time: float
    status: int

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
    first_failure: RankEnd | None = None


def read_attempts(run: RunDirectory) -> tuple[Attempt, ...]:
    """Return all attempts in order."""
    found: dict[str, Attempt] = {}
    for line in read_json_lines(run.path / "launch" / "attempts.jsonl"):
        name, event = str(line.get("attempt")), line.get("event")
        time = float(line.get("time", 0))
        if event == "start":
            found[name] = Attempt(name=name, nodes=str(line.get("nodes", "")), started=time)
            continue
        earlier = found.get(name, Attempt(name=name, nodes="", started=time))
        if event == "end":
            failed = line.get("outcome") in {"failed", "do-not-restart", "disk-full"}
            found[name] = Attempt(
                name=name,
                nodes=earlier.nodes,
                started=earlier.started,
                ended=time,
                outcome=str(line.get("outcome")),
                decision=str(line.get("decision")),
                why=str(line.get("why", "")),
                first_failure=first_failure(rank_ends(run, name)) if failed else None,
            )
    return tuple(found.values())


def rank_ends(run: RunDirectory, attempt: str) -> list[RankEnd]:
    """Return the ranks of an attempt that have ended."""
    ends = []
    for path in (run.path / "launch" / "ranks" / attempt).glob("rank-*"):
        end = _rank_end(path)
        if end:
            ends.append(end)
    return ends


def first_failure(ends: Sequence[RankEnd]) -> RankEnd | None:
    """Return the rank that failed first; those after it fell over it."""
    failed = [end for end in ends if end.status != 0]
    return min(failed, key=lambda end: end.time) if failed else None


def _rank_end(path: Path) -> RankEnd | None:
    host = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["started"] and len(words) > 2:
            host = words[2]
        elif words[:1] == ["ended"] and len(words) == 3:
            rank = int(path.name.removeprefix("rank-"))
            return RankEnd(rank=rank, host=host, time=float(words[1]), status=int(words[2]))
    return None
