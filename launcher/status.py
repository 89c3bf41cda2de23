"""Where a run stands, put together from its own files and, on SLURM, from the controller.

Nothing here needs SLURM's accounting: the run directory holds the attempts and their reasons, and
`scontrol show job` the state of the present job.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import psutil

from launcher.attempts import Attempt, read_attempts
from launcher.launcher_process import launcher_of
from launcher.run_directory import RunDirectory
from launcher.slurm.client import JobInfo, job_info
from launcher.slurm.states import Phase, phase_of
from launcher.slurm.submission import submitted_jobs
from profiles.errors import ConfigError, DependencyError, RunError

RECENT_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run at one moment. `seconds_left` is None when nothing can be said."""

    run: str
    where: str
    phase: Phase
    words: str
    jobs: tuple[str, ...]
    step: int
    steps: int
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    attempts: tuple[Attempt, ...]


def run_status(
    run: RunDirectory, *, ask: Callable[[str], JobInfo | None] = job_info, now: float | None = None
) -> RunStatus:
    """Return where `run` stands; `ask` gives what SLURM knows of a job."""
    jobs = submitted_jobs(run)
    attempts = read_attempts(run)
    phase, words = _verdict(run, attempts) or (_slurm_phase(jobs, ask) if jobs else _local_phase(run))
    metrics = run.metrics()
    recent = metrics[-RECENT_STEPS:]
    steps, step = run.job().steps, int(metrics[-1]["step"]) if metrics else 0
    seconds = median(line["step_seconds"] for line in recent) if recent else None
    return RunStatus(
        run=str(run.path),
        where="slurm" if jobs else "local",
        phase=phase,
        words=words,
        jobs=jobs,
        step=step,
        steps=steps,
        loss=metrics[-1].get("loss") if metrics else None,
        tokens_per_second=recent[-1].get("tokens_per_second") if recent and phase == "running" else None,
        seconds_left=(steps - step) * seconds if seconds is not None and phase == "running" else None,
        attempts=attempts,
    )


def _verdict(run: RunDirectory, attempts: Sequence[Attempt]) -> tuple[Phase, str] | None:
    """Return how the run ended for good, None while it has not."""
    path = run.path / "launch" / "verdict"
    verdict = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not verdict:
        return None
    why = next((a.why for a in reversed(attempts) if a.outcome == verdict and a.why), "")
    phase: Phase = "finished" if verdict == "finished" else "failed"
    phase = "cancelled" if verdict == "stopped" else phase
    return phase, verdict + (f": {why}" if why else "")


def _slurm_phase(jobs: Sequence[str], ask: Callable[[str], JobInfo | None]) -> tuple[Phase, str]:
    try:
        infos = [info for info in map(ask, jobs) if info]
    except (DependencyError, RunError) as error:
        return "unknown", f"SLURM cannot be asked: {error}"
    if not infos:
        return "unknown", "SLURM has forgotten the job, and it left no verdict: it was killed or cancelled"
    # Of a chain, the link that is furthest on its way.
    order: tuple[Phase, ...] = ("running", "ending", "waiting", "failed", "cancelled", "finished", "unknown")
    info = min(infos, key=lambda item: order.index(phase_of(item.state)[0]))
    phase, words = phase_of(info.state)
    comment = info.fields.get("Comment", "")
    if phase == "waiting" and info.reason not in {"None", ""}:
        words += f" ({info.reason})"
    if phase == "failed" and comment.startswith("cuboid: "):
        words = comment.removeprefix("cuboid: ")
    if info.restarts:
        words += f", started again {info.restarts} time(s)"
    return phase, f"job {info.job_id} {words}"


def _local_phase(run: RunDirectory) -> tuple[Phase, str]:
    events = [event for event in run.events() if event.get("event") != "checkpoint"]
    ranks = local_processes(run)
    if ranks or launcher_of(run):
        return "running", "runs on this machine" if ranks else "its ranks are being started on this machine"
    if not events:
        return "unknown", "has not started"
    last = events[-1]
    if last["event"] == "finished":
        return "finished", "finished"
    if last["event"] == "stopped":
        return "cancelled", f"stopped ({last.get('reason')})"
    if last["event"] == "failed":
        return "failed", f"rank {last.get('rank')} failed: {last.get('error')}"
    age = max(0.0, time.time() - float(last.get("time", 0)))
    return "failed", f"ended without a word; its last event, {last['event']}, is {age:.0f} s old"


def refuse_busy(run: RunDirectory) -> None:
    """Refuse to start what is under way: two launches in one run directory would write over each other.

    Raises:
        ConfigError: naming the job, or the processes on this machine.
    """
    cancel = f"cuboid cancel {shlex.quote(str(run.path))} first"
    for job in submitted_jobs(run):
        with suppress(DependencyError):  # without SLURM here nobody can tell
            info = job_info(job)
            if info and phase_of(info.state)[0] in {"waiting", "running", "ending"}:
                raise ConfigError(f"{run.path}: job {job} of it is not over; {cancel}")
    if local_processes(run) or launcher_of(run):
        raise ConfigError(f"{run.path}: runs on this machine; {cancel}")


def local_processes(run: RunDirectory) -> list[psutil.Process]:
    """Return the processes on this machine that execute `run`."""
    path, found = str(run.path.absolute()), []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--run" in words[:-1]:
            value = words[words.index("--run") + 1]
            if value == path or value == str(run.path):
                found.append(process)
    return found
