"""`cuboid launch … --on slurm`: prepare, show, send."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from launcher.console import print_json, stdout_console
from launcher.run_directory import RunDirectory, create_run
from launcher.slurm.client import expected_start
from launcher.slurm.cost_report import cost_report
from launcher.slurm.settings import find_site
from launcher.slurm.show import show_submission, submission_data
from launcher.slurm.submission import Submission, prepare, submit
from planner.job import Job
from profiles.site import SiteProfile, SlurmOptions, load_site


def launch_on_slurm(
    job: Job,
    run: RunDirectory | None,
    *,
    runs: Path,
    site: Path | None,
    slurm: SlurmOptions,
    dry_run: bool,
    json: bool,
) -> None:
    """Send `job` to SLURM, in its run directory `run` or a new one under `runs`; only show it when `dry_run`.

    Raises:
        ConfigError: for a value that cannot be given to SLURM; nothing is written then.
        DependencyError: when SLURM is not installed here.
        RunError: when SLURM refuses the job.
    """
    profile = _site(site)
    folder = run.path if run else runs / job.name
    submission = prepare(job, folder, site=profile, options=slurm)
    if dry_run:
        _show(job, submission, json=json)
        return
    created = run is None
    if created:
        create_run(runs, job)
    try:
        jobs = submit(submission)
    except BaseException:
        if created:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if json:
        print_json({"run": str(folder), "jobs": list(jobs)})
        return
    out = stdout_console()
    words = "job" if len(jobs) == 1 else "jobs"
    out.print(f"Submitted {words} {', '.join(jobs)} for {folder}", markup=False)
    path = shlex.quote(str(folder))
    out.print(
        f"Next: cuboid status {path} · cuboid logs {path} · cuboid cancel {path}",
        markup=False,
        soft_wrap=True,
    )


def _show(job: Job, submission: Submission, *, json: bool) -> None:
    start = expected_start(submission.script, cwd=Path.cwd(), environment=submission.environment)
    report = cost_report(job, submission, expected_start=start)
    if json:
        print_json(submission_data(submission, report))
        return
    out = stdout_console()
    show_submission(out, submission, report)
    out.print(
        f"Nothing was sent. To send it, leave out --dry-run; {submission.run} is its run directory.",
        markup=False,
    )


def _site(path: Path | None) -> SiteProfile | None:
    found = path or find_site(os.environ)
    return load_site(found) if found else None
