"""A job ready to be sent: what the dry run prints is the very object that submission sends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.run_directory import RunDirectory, forget_ending
from launcher.slurm.client import cancel_job, submit_script
from launcher.slurm.directives import seconds_of
from launcher.slurm.environment import Finding, findings, submission_environment
from launcher.slurm.placement import Placement, place
from launcher.slurm.render import SUBMIT_COMMAND, render_script, render_tasks, restart_mode
from launcher.slurm.settings import COMMAND_LINE, JOB, SITE, Settings, merge
from planner.job import Job
from profiles.documents import write_text
from profiles.errors import ConfigError
from profiles.site import SlurmOptions

LEAST_GRACE_SECONDS = 60
CHECKPOINT_BYTES_PER_SECOND = 1e9  # of one node, assumed: parallel file systems give about this


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Everything that is sent to SLURM for one job, and what a person needs to judge it."""

    run: Path
    script: str
    worker: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    submissions: int
    placement: Placement
    settings: Settings
    grace_seconds: int
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]


def prepare(
    job: Job,
    run: Path,
    *,
    site: SlurmOptions | None = None,
    options: SlurmOptions | None = None,
    environment: Mapping[str, str] | None = None,
) -> Submission:
    """Return the submission of `job` in the run directory `run`, which need not exist yet.

    `options` are those of the command line; `environment` is the shell's.

    Raises:
        ConfigError: for a value that cannot be given to SLURM, with the field's name.
    """
    inherited = os.environ if environment is None else environment
    levels = [(COMMAND_LINE, options), (JOB, job.slurm), (SITE, site)]
    settings = merge([(origin, level) for origin, level in levels if level is not None])
    merged = settings.options
    run = run.absolute()
    placement = place(job.plan)
    if merged.min_nodes and merged.min_nodes > placement.nodes:
        raise ConfigError(f"min_nodes: {merged.min_nodes} is more than the plan's {placement.nodes} nodes")
    planned = {
        "cpus_per_node": job.plan.cluster.cores_per_node,
        "grace_seconds": _grace_seconds(job, placement),
    }
    planned = {name: value for name, value in planned.items() if value and getattr(merged, name) is None}
    merged = merged.model_copy(update=planned)
    settings = Settings(options=merged, origins={**settings.origins, **dict.fromkeys(planned, "plan")})
    grace = merged.grace_seconds or LEAST_GRACE_SECONDS
    return Submission(
        run=run,
        script=render_script(job=job, run=run, options=merged, placement=placement, grace_seconds=grace),
        worker=render_tasks(job=job, run=run, options=merged, placement=placement),
        command=SUBMIT_COMMAND,
        environment=submission_environment(inherited),
        submissions=merged.links or 1,
        placement=placement,
        settings=settings,
        grace_seconds=grace,
        findings=findings(inherited, merged.keep_environment or ()),
        warnings=tuple(_warnings(job, merged, grace, placement)),
    )


def write(submission: Submission) -> None:
    """Write the scripts into the run directory, and forget how earlier submissions of it ended."""
    folder = submission.run / "launch"
    forget_ending(submission.run)
    for name, text in (("job.sbatch", submission.script), ("worker.sh", submission.worker)):
        write_text(folder / name, text)
        (folder / name).chmod(0o755)


def submit(submission: Submission) -> tuple[str, ...]:
    """Write the scripts, send them to SLURM and return the job ids.

    Raises:
        RunError: when SLURM refuses; jobs of a chain that were already accepted are cancelled.
    """
    write(submission)
    jobs: list[str] = []
    try:
        for _ in range(submission.submissions):
            jobs += [
                submit_script(submission.command, cwd=submission.run, environment=submission.environment)
            ]
    except Exception:
        for job in jobs:
            cancel_job(job)
        raise
    write_text(submission.run / "launch" / "jobs", "".join(f"{job}\n" for job in jobs))
    return tuple(jobs)


def submitted_jobs(run: RunDirectory) -> tuple[str, ...]:
    """Return the ids of the jobs of the last submission; empty for a run that never went to SLURM."""
    path = run.path / "launch" / "jobs"
    words: Sequence[str] = path.read_text(encoding="utf-8").split() if path.exists() else ()
    return tuple(word for word in words if word.isdigit())


def _grace_seconds(job: Job, placement: Placement) -> int:
    """Twice the longest step and one checkpoint: 16 bytes a parameter, written by all nodes at once."""
    step = job.plan.estimate.step_seconds if job.plan.estimate else 0.0
    seconds = 16.0 * job.plan.model.parameters / (CHECKPOINT_BYTES_PER_SECOND * placement.nodes)
    return max(LEAST_GRACE_SECONDS, round(2 * (step + seconds)))


def _warnings(job: Job, options: SlurmOptions, grace: int, placement: Placement) -> list[str]:
    warnings = []
    limit = seconds_of(options.time_limit) if options.time_limit else None
    if limit is None:
        warnings.append(
            "time_limit: not given, so the partition's default decides; give one to be scheduled sooner"
        )
    elif limit <= 2 * grace:
        warnings.append(f"time_limit: {limit} s leaves little beside the {grace} s that saving may take")
    if limit and job.plan.estimate and job.plan.estimate.step_seconds * job.steps > limit - grace:
        restart = restart_mode(options)
        if restart == "none":
            warnings.append(
                "time_limit: too short for all steps, and nothing starts the job again; allow requeue"
            )
    if not options.exclusive and options.memory is None:
        warnings.append(
            "memory: not given for shared nodes, so the partition's default decides; it can be tiny"
        )
    if job.checkpoint.every_steps is None:
        warnings.append("checkpoint.every_steps: none, so a failed node costs all steps since the start")
    tp = next(axis for axis in placement.axes if axis.axis == "tp")
    if tp.nodes_per_group > 1:
        warnings.append(f"layout.tp: a tensor-parallel group spans {tp.nodes_per_group} nodes over {tp.link}")
    if options.container and job.data.path and not _mounted(job.data.path, options.container.mounts):
        warnings.append(
            f"container.mounts: {job.data.path} is in none of them; the ranks may not find the data"
        )
    if options.segment and placement.nodes % options.segment:
        warnings.append(f"segment: {placement.nodes} nodes are not a multiple of {options.segment}")
    return warnings


def _mounted(path: str, mounts: Sequence[str]) -> bool:
    """Tell whether `path` is seen through `mounts`: SOURCE:TARGET[:FLAGS], or one path for both."""
    return any(Path(path).is_relative_to([*mount.split(":"), mount][1]) for mount in mounts)
