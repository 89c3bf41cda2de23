"""SLURM's own commands, asked with argument lists and a time-out, their answers typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiles.errors import DependencyError, RunError

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """What `scontrol show job` says of one job; `fields` holds every KEY=VALUE of it."""

    job_id: str
    state: str
    reason: str
    fields: Mapping[str, str]

    @property
    def restarts(self) -> int:
        """How often SLURM has started it again."""
        return int(self.fields.get("Restarts", "0") or 0)


def run_command(
    words: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run one SLURM command, `text` on its standard input.

    Raises:
        DependencyError: when SLURM is not installed here.
        RunError: when it does not answer in time.
    """
    if shutil.which(words[0], path=(environment or os.environ).get("PATH")) is None:
        raise DependencyError(f"{words[0]} is not installed here; run this on a login node of the cluster")
    try:
        return subprocess.run(
            words,
            cwd=cwd,
            env=None if environment is None else dict(environment),
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(
            f"{words[0]} gave no answer in {TIMEOUT_SECONDS:.0f} s; is the controller up?"
        ) from None


def submit_script(words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> str:
    """Run sbatch and return the job id.

    Raises:
        RunError: with SLURM's own words when it refuses.
    """
    done = run_command(words, cwd=cwd, environment=environment)
    match = re.match(r"(\d+)", done.stdout.strip())
    if done.returncode != 0 or not match:
        raise RunError(f"sbatch refused the job: {(done.stderr or done.stdout).strip()}")
    return match.group(1)


def expected_start(script: str, *, cwd: Path, environment: Mapping[str, str]) -> str:
    """Return in words when the job would start, by `sbatch --test-only`; the reason when that is unknown."""
    try:
        done = run_command(("sbatch", "--test-only"), cwd=cwd, environment=environment, text=script)
    except (DependencyError, RunError) as error:
        return f"unknown ({error})"
    words = (done.stderr or done.stdout).strip().splitlines()
    match = re.search(r"to start at (\S+)", done.stderr + done.stdout)
    if match:
        return match.group(1).replace("T", " ")
    return f"refused by SLURM: {words[-1] if words else done.returncode}"


def job_info(job_id: str) -> JobInfo | None:
    """Return what the controller knows of a job, None when it has forgotten it."""
    done = run_command(("scontrol", "show", "job", job_id, "--oneliner"))
    if done.returncode != 0:
        return None
    # Of an array, the links that have run come one a line; the one that runs or ran last matters.
    infos = [parse_job(line) for line in done.stdout.splitlines() if line.startswith("JobId=")]
    running = [info for info in infos if info.state not in {"PENDING", "COMPLETED", "CANCELLED"}]
    found = running or infos
    return found[-1] if found else None


def parse_job(line: str) -> JobInfo:
    """Parse one line of `scontrol show job --oneliner`."""
    parts = re.split(r"(?:^|\s)([A-Z][A-Za-z:_/]*)=", line)[1:]
    fields = {key: value.strip() for key, value in zip(parts[::2], parts[1::2], strict=True)}
    return JobInfo(
        job_id=fields.get("JobId", ""),
        state=fields.get("JobState", "UNKNOWN").split()[0],
        reason=fields.get("Reason", "None"),
        fields=fields,
    )


def cancel_job(job_id: str, *, pending_only: bool = False) -> None:
    """Cancel a job, or only those parts of it that have not started."""
    run_command(("scancel", "--quiet", *(("--state=PENDING",) if pending_only else ()), job_id))
