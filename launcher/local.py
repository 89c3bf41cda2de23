"""Start a run on this machine with torchrun, follow it, and leave no process behind.

cuboid launch ── torchrun (own session) ─┬─ worker.sh ── rank 0
     │                                   ├─ worker.sh ── rank 1      torchrun puts every worker in a
     └── on Ctrl-C, SIGTERM or SIGHUP:   └─ …                        session of its own; all processes
                                                                     of a launch carry its token
         1. SIGTERM to torchrun, which passes it on; the ranks save and leave
         2. after a grace, SIGKILL to whatever of the tree is left
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from launcher.run_directory import NewLines, RunDirectory
from launcher.worker import render_worker, worker_variables
from planner.job import Job
from profiles.documents import write_text
from profiles.errors import DependencyError

POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0
LAUNCH_VARIABLE = "CUBOID_LAUNCH"
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
_KEPT_PREFIXES = ("CUBOID_", "NCCL_", "GLOO_", "TORCH_", "OMP_", "CUDA_", "SLURM_", "UCX_", "FI_")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is started: the words of the command and what is added to the environment."""

    words: tuple[str, ...]
    environment: Mapping[str, str]

    def text(self) -> str:
        """Return the command as one can paste it into a shell."""
        assignments = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.words)])


def torchrun_command(run: RunDirectory, *, resume: bool, attempt: str = "local.0") -> Command:
    """Return the torchrun command that executes an attempt of `run` on this machine.

    Raises:
        DependencyError: when torch or bash is not installed.
    """
    require_torch()
    ranks = run.plan().layout.world_size
    words = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--max-restarts=0"]
    words += [f"--nproc-per-node={ranks}", "--no-python", "bash", str(run.worker_path.absolute()), "rank"]
    if resume:
        words.append("--resume")
    environment = {
        "CUBOID_ATTEMPT": attempt,
        "CUBOID_RANKS": str((run.path / "launch" / "ranks" / attempt).absolute()),
    }
    return Command(words=tuple(words), environment=environment)


def local_worker(job: Job, run: Path, extra: Mapping[str, str] | None = None) -> str:
    """Return the script that every rank of `job` is started by; `extra` variables win over the job's."""
    ranks, run = job.plan.layout.world_size, run.absolute()
    variables = worker_variables(run=run, cores=_cores(), ranks_per_node=ranks)
    return render_worker(
        run=run,
        python=sys.executable,
        ranks_per_node=ranks,
        variables=variables | job.environment | dict(extra or {}),
    )


def require_torch() -> None:
    """Refuse to go on without torch and bash, saying how to get them.

    Raises:
        DependencyError: when one is not installed.
    """
    from importlib.util import find_spec  # noqa: PLC0415 (only here)

    if find_spec("torch") is None:
        raise DependencyError("the runtime needs torch; in Cuboid's folder: pip install '.[runtime]'")
    if shutil.which("bash") is None:
        raise DependencyError("ranks are started by a bash script, and bash is not installed here")


def run_local(
    run: RunDirectory,
    attempt: str,
    *,
    resume: bool,
    on_step: Callable[[dict[str, Any]], None],
    on_warning: Callable[[str], None],
) -> int:
    """Run one attempt to its end and return torchrun's exit code.

    `on_step` sees the metrics of every step, `on_warning` what the run warns of.

    Raises:
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, once no process is left.
    """
    command = torchrun_command(run, resume=resume, attempt=attempt)
    Path(command.environment["CUBOID_RANKS"]).mkdir(parents=True, exist_ok=True)
    write_text(run.path / "launch" / "command.txt", command.text() + "\n")
    write_text(run.path / "launch" / "environment.txt", _environment_text(command))
    steps, events, token = NewLines(run.metrics_path), NewLines(run.events_path), uuid.uuid4().hex
    for earlier in (steps, events):
        list(earlier.read())
    with (run.logs / "torchrun.log").open("ab") as log, _interruptible():
        process = subprocess.Popen(
            command.words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.environment, LAUNCH_VARIABLE: token},
            start_new_session=True,
        )
        try:
            ended = False
            while not ended:
                ended = process.poll() is not None  # before what it wrote last is read
                for event in events.read():
                    if event.get("event") == "warning":
                        on_warning(str(event.get("text")))
                for metrics in steps.read():
                    on_step(metrics)
                time.sleep(0.0 if ended else POLL_SECONDS)
        except BaseException:
            end_run(process, token, grace_seconds=GRACE_SECONDS)
            raise
        end_run(process, token, grace_seconds=0.0)  # torchrun may be gone before its ranks
        return process.returncode


def end_run(process: subprocess.Popen[bytes], token: str, *, grace_seconds: float) -> None:
    """End torchrun and all ranks: SIGTERM to torchrun, the grace, SIGKILL to what is left."""
    if process.poll() is None and grace_seconds > 0:
        process.terminate()
        psutil.wait_procs(_processes_of(token), timeout=grace_seconds)
    left = _processes_of(token)
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=5.0)
    process.wait()


def _processes_of(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(LAUNCH_VARIABLE) == token:
                found.append(process)
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process the way Ctrl-C does: with the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment_text(command: Command) -> str:
    """The variables that matter to a run, secrets left out."""
    merged = {key: value for key, value in os.environ.items() if key.startswith(_KEPT_PREFIXES)}
    merged |= command.environment
    lines = []
    for key, value in sorted(merged.items()):
        shown = "(hidden)" if any(word in key.upper() for word in _SECRET) else value
        lines.append(f"{key}={shown!r}\n")
    return "".join(lines)
