"""What can be said of a job before any node is looked at: can the runtime do it, is its data there?"""

from __future__ import annotations

from pathlib import Path

from launcher.slurm.environment import check_environment
from planner.job import DataSpec, Job
from planner.layout_schedule import schedule_of
from planner.targets import CUBOID, check_target
from profiles.errors import ConfigError, FieldError
from profiles.model import ModelSpec


def check_job(job: Job) -> None:
    """Refuse a job that no machine could run.

    Raises:
        ConfigError: when the runtime cannot run the layout, its schedule cannot be built, a variable cannot
            be exported, or the data cannot be read or is too short.
    """
    try:
        check_target(job.plan.layout, job.plan.model, CUBOID)
    except FieldError as error:
        raise ConfigError(f"layout.{error}") from None
    schedule_of(job.plan.layout)
    check_environment(job.environment)
    check_data(job.data, job.plan.model)


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
