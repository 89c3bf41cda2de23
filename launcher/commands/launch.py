"""`cuboid launch`: run a plan."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.console import counted, print_json, stderr_console, stdout_console
from launcher.failure import failure
from launcher.follow import StepPrinter
from launcher.local import local_worker, require_torch, run_local, torchrun_command
from launcher.run_directory import RunDirectory, check_name, create_run, forget_ending, free_name, open_run
from launcher.slurm.options import slurm_options
from launcher.slurm.settings import COMMAND_LINE, JOB, merge
from launcher.status import refuse_busy
from launcher.supervise import supervise
from planner.job import Job, load_job
from profiles.documents import plain, write_text
from profiles.errors import ConfigError
from profiles.site import SlurmOptions

if TYPE_CHECKING:
    from rich.console import Console


LOCAL_OPTIONS = ("requeue", "retries", "preflight", "environment")


class Where(StrEnum):
    """Where a job runs."""

    LOCAL = "local"
    SLURM = "slurm"


@slurm_options
def launch(
    source: Annotated[
        Path, typer.Argument(metavar="PLAN|JOB|RUN", help="plan.yaml, job.yaml or a run directory.")
    ],
    on: Annotated[Where, typer.Option(help="Here, or on the cluster this machine belongs to.")] = Where.LOCAL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; write nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run from its last checkpoint.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the plan's file name.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=1, help="Steps to train, instead of the job's.")] = None,
    data: Annotated[str | None, typer.Option(help="Text file or folder, instead of the job's.")] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Schedule file (.json, .csv) to run instead of the plan's schedule.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    site: Annotated[Path | None, typer.Option(help="SLURM: site.yaml; default: $CUBOID_SITE.")] = None,
    *,
    slurm: SlurmOptions,
) -> None:
    """Run a plan or a job; continue an interrupted run.

    Ctrl-C saves a checkpoint and stops. A run keeps everything it leaves behind in runs/NAME. One that fails
    is started again from its newest checkpoint, as long as checkpoints move on and --retries last.

    With --on slurm every key of site.yaml is an option, also what is not listed here: --qos, --gpu-request,
    --grace-seconds, --memory, --collective-test …

    Example: cuboid launch plan.yaml --steps 200 --name first
             cuboid launch runs/first --resume
             cuboid launch plan.yaml --on slurm --time-limit 4:00:00 --dry-run
    """
    from launcher.preflight import check_here, check_job  # noqa: PLC0415 (start-up time of --help)

    job, run = _resolve(source, name=name, runs=runs, steps=steps, data=data, resume=resume)
    if schedule is not None:
        job = _with_schedule(job, run, schedule, costs=source.parent / "costs.yaml")
    check_job(job, source=run.job_path if run else source)
    if run and not dry_run:
        refuse_busy(run)
    if on is Where.SLURM:
        from launcher.slurm.command import launch_on_slurm  # noqa: PLC0415 (only here)

        launch_on_slurm(job, run, runs=runs, site=site, slurm=slurm, dry_run=dry_run, json=json)
        return
    options = _local_options(job, slurm)
    console = stderr_console()
    for trouble in check_here(job, runs, options.preflight or "strict"):
        console.print(f"warning: {trouble.message}", markup=False)
    if dry_run:
        _show(job, run, options, runs=runs, json=json)
        return
    if run and run.newest_checkpoint() == job.steps and _outcome(run)["finished"]:
        console.print(
            f"All {job.steps} steps are done; to train on, raise steps in {run.job_path}", markup=False
        )
    else:
        require_torch()  # before a run directory is made for nothing
        run = run or create_run(runs, job)
        train(run, resume=resume, console=console, options=options)
    outcome, path = _outcome(run), shlex.quote(str(run.path))
    if json:
        print_json(outcome)
    elif outcome["finished"]:
        stdout_console().print(f"Finished. Next: cuboid report {path}", markup=False, soft_wrap=True)
    else:
        stdout_console().print(f"Stopped. Next: cuboid launch {path} --resume", markup=False, soft_wrap=True)


def _with_schedule(job: Job, run: RunDirectory | None, schedule: Path, *, costs: Path) -> Job:
    from launcher.job_schedule import describe, with_schedule_file  # noqa: PLC0415 (start-up time of --help)

    if run:
        raise ConfigError("--resume continues a run as it was; --schedule is for new ones")
    job = with_schedule_file(job, schedule, costs=costs)
    stderr_console().print(describe(job), markup=False)
    return job


def train(run: RunDirectory, *, resume: bool, console: Console, options: SlurmOptions | None = None) -> None:
    """Run to the end, showing the steps as they come; start again as the policy says.

    Raises:
        RunError: when the run fails, naming the first rank that did.
    """
    from rich.markup import escape  # noqa: PLC0415 (start-up time of --help)

    job = run.job()
    layout, options = job.plan.layout, options or _local_options(job, SlurmOptions())
    count = counted(layout.microbatches, "microbatch", "microbatches")
    console.print(
        f"[bold]{escape(str(run.path))}[/]  tp {layout.tp} × pp {layout.pp} × dp {layout.dp},"
        f" {layout.schedule}, {count} of {layout.microbatch};"
        f" starting {counted(layout.world_size, 'rank')} …"
    )
    printer = StepPrinter(steps=job.steps, write=lambda line: console.print(line, markup=False))

    def warn(text: str) -> None:
        console.print(f"warning: {text}", markup=False)

    forget_ending(run.path)
    write_text(run.worker_path, local_worker(job, run.path, options.environment))
    try:
        code = supervise(
            run,
            resume=resume,
            requeue=bool(options.requeue),
            retries=options.retries or 0,
            start=lambda attempt, again: run_local(
                run, attempt, resume=again, on_step=printer, on_warning=warn
            ),
            say=lambda line: console.print(line, markup=False),
        )
    except KeyboardInterrupt:
        saved = run.newest_checkpoint()
        kept = f"Step {saved} is saved" if saved else "Nothing is saved yet"
        again = f"cuboid launch {shlex.quote(str(run.path))} --resume"
        console.print(f"{kept}. Next: {again}", markup=False, soft_wrap=True)
        raise
    if code != 0:
        raise failure(run, code)


def _local_options(job: Job, given: SlurmOptions) -> SlurmOptions:
    """Return what a launch on this machine needs of the settings: command line, then job, then default.

    Raises:
        ConfigError: for an option that has no meaning here.
    """
    for name in SlurmOptions.model_fields:
        if name not in LOCAL_OPTIONS and getattr(given, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: only together with --on slurm")
    return merge([(COMMAND_LINE, given), (JOB, job.slurm)]).options


def _outcome(run: RunDirectory) -> dict[str, Any]:
    metrics, record = run.metrics(), run.record()
    last = metrics[-1] if metrics else {}
    return {
        "run": str(run.path),
        "finished": last.get("step") == run.job().steps,
        "last": last,
        "record": plain(record) if record else None,
    }


def _resolve(
    source: Path, *, name: str | None, runs: Path, steps: int | None, data: str | None, resume: bool
) -> tuple[Job, RunDirectory | None]:
    """Return the job, and its run directory if it has one already."""
    if source.is_dir():
        run = open_run(source)
        if not resume:
            raise ConfigError(f"{source}: has been started before; continue it with --resume")
        if name or steps or data:
            raise ConfigError(
                "--resume continues a run as it was; --name, --steps and --data are for new ones"
            )
        return run.job(), run
    if resume:
        raise ConfigError(f"{source}: --resume takes a run directory, such as runs/{source.stem}")
    job = load_job(source)
    if steps and job.trace_step and job.trace_step > steps:
        raise ConfigError(
            f"--steps {steps}: {source} asks for the timeline of step {job.trace_step} (trace_step)"
        )
    stem = job.name if job.name != "run" else source.stem
    path = data or job.data.path
    changes = {
        "name": check_name(name or free_name(runs, check_name(stem))),
        "steps": steps or job.steps,
        "data": job.data.model_copy(update={"path": str(Path(path).absolute()) if path else None}),
    }
    return job.model_copy(update=changes), None


def _show(job: Job, run: RunDirectory | None, options: SlurmOptions, *, runs: Path, json: bool) -> None:
    layout, where = job.plan.layout, run.path if run else runs / job.name
    places = [layout.coordinates(rank) for rank in range(layout.world_size)]
    command = torchrun_command(run, resume=True).text() if run else None
    retries = (options.retries or 0) if options.requeue else 0
    if json:
        ranks = [{"rank": rank} | place._asdict() for rank, place in enumerate(places)]
        facts = {"run": str(where), "steps": job.steps, "retries": retries, "command": command}
        print_json(facts | {"layout": layout.model_dump(mode="json"), "ranks": ranks})
        return
    out = stdout_console()
    what = f"{counted(job.steps, 'step')} of {job.plan.model.name} on {counted(layout.world_size, 'rank')}"
    out.print(f"Would run {what} in {where}", markup=False)
    again = f"up to {counted(retries, 'retry', 'retries')}" if options.requeue else "no restart"
    out.print(f"After a failure: {again}", markup=False)
    out.print("rank  tp dp pp")
    for rank, place in enumerate(places):
        out.print(f"{rank:>4}  {place.tp:>2} {place.dp:>2} {place.pp:>2}")
    if command:
        out.print(command, markup=False, soft_wrap=True)
