"""`cuboid cancel`: stop a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import psutil
import typer

from launcher.console import print_json, stdout_console
from launcher.launcher_process import launcher_of
from launcher.run_directory import open_run
from launcher.slurm.client import cancel_job, job_info
from launcher.slurm.states import phase_of
from launcher.slurm.submission import submitted_jobs
from launcher.status import local_processes
from profiles.documents import write_text


def cancel(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the step and a checkpoint.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Stop a run: the running step is finished, a checkpoint saved, and nothing starts it again.

    Jobs still in the queue are taken out. With --now the job is cancelled at once; steps since the last
    checkpoint are lost.

    Example: cuboid cancel runs/first
             cuboid cancel runs/first --now
    """
    directory = open_run(run)
    jobs = submitted_jobs(directory)
    stopping, cancelled = [], []
    for job in jobs:
        info = job_info(job)
        phase = phase_of(info.state)[0] if info else "unknown"
        if phase == "running" and not now:
            stopping.append(job)
        if phase in {"running", "waiting"}:
            cancel_job(job, pending_only=not now)
            cancelled.append(job)
    if not jobs:
        processes, launcher = local_processes(directory), launcher_of(directory)
        # The launcher ends all of its processes, and starts none again.
        asked = [launcher] if launcher else processes
        stopping = [str(process.pid) for process in processes or asked]
        if now:
            psutil.wait_procs([_terminated(process) for process in asked], timeout=60)
    if stopping and not now:
        write_text(directory.stop_path, "cancelled\n")
    path = shlex.quote(str(run))
    if json:
        print_json({"run": str(run), "jobs": list(jobs), "stopping": stopping, "cancelled": cancelled})
    elif now:
        stdout_console().print(
            f"Cancelled. Next: cuboid launch {path} --resume", markup=False, soft_wrap=True
        )
    elif stopping:
        stdout_console().print(
            f"Stopping after the running step. Next: cuboid status {path}", markup=False, soft_wrap=True
        )
    else:
        stdout_console().print("Nothing runs." + (" Taken out of the queue." if cancelled else ""))


def _terminated(process: psutil.Process) -> psutil.Process:
    process.terminate()
    return process
