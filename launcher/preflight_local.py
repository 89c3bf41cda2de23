"""Before a run starts here: is this machine what the plan was made for, and can the runtime do it?"""

from __future__ import annotations

from pathlib import Path

from planner.job import DataSpec, Job
from planner.schedules import build
from planner.targets import CUBOID, check_target
from profiles.errors import ConfigError, FieldError, PreflightError
from profiles.model import ModelSpec


def check_local(job: Job) -> None:
    """Refuse a job that cannot run on this machine, before anything is written.

    Raises:
        ConfigError: when the runtime cannot run the layout, or its schedule cannot be built.
        PreflightError: when the plan is for other or more devices than there are here.
        ConfigError: when the data cannot be read or is too short.
    """
    try:
        check_target(job.plan.layout, job.plan.model, CUBOID)
    except FieldError as error:
        raise ConfigError(f"layout.{error}") from None
    layout = job.plan.layout
    build(layout.schedule, ranks=layout.pp, microbatches=layout.microbatches, chunks=layout.chunks)
    _check_devices(job)
    check_data(job.data, job.plan.model)


def _check_devices(job: Job) -> None:
    cluster, ranks = job.plan.cluster, job.plan.layout.world_size
    if cluster.device.vendor == "cpu":
        return
    from planner.probe import probe  # noqa: PLC0415 (a probe takes a moment)

    here = probe()
    if here.device.vendor != cluster.device.vendor:
        raise PreflightError(
            f"the plan is for {ranks} × {cluster.device.name}, this machine has none;"
            " launch it with --on slurm, or plan for this machine: cuboid probe -o cluster.yaml"
        )
    if here.devices < ranks:
        raise PreflightError(
            f"the plan needs {ranks} × {cluster.device.name}, this machine has {here.devices}; "
            "launch it with --on slurm, or plan with --devices " + str(here.devices)
        )


def check_data(data: DataSpec, model: ModelSpec) -> None:
    """Refuse a corpus that is missing, unreadable or shorter than one sequence.

    Raises:
        ConfigError: naming the file or folder.
    """
    if data.path is None:
        return
    from profiles.corpus import load_corpus  # noqa: PLC0415 (numpy only where there is a corpus)

    size = len(load_corpus(Path(data.path)))
    needed = round((model.seq_len + 1) / (1 - data.holdout)) + 1
    if size < needed:
        raise ConfigError(
            f"data: {data.path} holds {size} bytes of text, one sequence needs {needed};"
            " give more text or a smaller seq_len"
        )
