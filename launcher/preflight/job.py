"""What can be said of a job before any node is looked at: can the runtime do it, is its data there?"""

from __future__ import annotations

from pathlib import Path

from launcher.slurm.environment import check_environment
from planner.job import DataSpec, Job, locate_in_plan
from planner.layout_schedule import check_steps, schedule_of
from planner.targets import CUBOID, check_target
from profiles.errors import ConfigError, FieldError
from profiles.model import ModelSpec


def check_job(job: Job, *, source: Path | None = None) -> None:
    """Refuse a job that no machine could run; `source` is the file it was read from.

    Raises:
        ConfigError: when the runtime cannot run the layout, its schedule cannot be built, a variable cannot
            be exported, or the data cannot be read or is too short.
    """
    try:
        check_target(job.plan.layout, job.plan.model, CUBOID)
    except FieldError as error:
        error = FieldError(("layout", *error.path), error.message)
        raise (locate_in_plan(source, error) if source else error) from None
    schedule_of(job.plan.layout)
    check_steps(job.plan.layout, job.steps)
    check_environment(job.environment)
    check_data(job.data, job.plan.model)


def check_data(data: DataSpec, model: ModelSpec) -> None:
    """Refuse a corpus that is missing, unreadable or shorter than one sequence, and a vocabulary below 256.

    Raises:
        ConfigError: naming the file or folder, or the vocabulary.
    """
    # numpy and the text of 700 kB cost start-up time of --help
    from profiles.corpus import VOCABULARY, load_corpus, trained_on  # noqa: PLC0415

    size, what = len(load_corpus(Path(data.path) if data.path else None)), data.path or "the built-in text"
    usable, needed = trained_on(size, data.holdout), model.seq_len + 1
    if usable < needed:
        raise ConfigError(
            f"data: {what} holds {size} bytes of text, one sequence needs {needed}"
            f" besides the {size - usable} held out; give more text or a smaller seq_len"
        )
    if model.vocab < VOCABULARY:
        raise ConfigError(f"model.vocab: {model.vocab} is too small for text read as bytes; use {VOCABULARY}")
