"""job.yaml: one training job — its plan, data, optimizer, length and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from planner.plan import Plan, load_plan, plan_from_data
from profiles.documents import Record, read_document, validate
from profiles.errors import ConfigError, FieldError
from profiles.site import SlurmOptions

FINAL_LEARNING_RATE = 3e-5
LONGEST_WAIT_SECONDS = 366 * 86400.0


Timeout = Annotated[float, Field(gt=0, le=LONGEST_WAIT_SECONDS)]


def _among_steps(value: int | None, info: ValidationInfo) -> int | None:
    steps = info.data.get("steps")
    if value is not None and steps is not None and value > steps:
        raise ValueError(f"must be at most steps = {steps}: no later step is run")
    return value


TracedStep = Annotated[
    PositiveInt | None, AfterValidator(_among_steps)
]  # of a record that has `steps` before


class DataSpec(Record):
    """Where the tokens come from.

    `path` is a file or folder of text, read as bytes (vocabulary 256), relative to the job's file; null is
    the text that every CPython carries, the language reference in `pydoc_data.topics`. `holdout` is the share
    of it, less than all, kept for evaluation.
    """

    path: str | None = Field(default=None, min_length=1)
    holdout: float = Field(default=0.02, ge=0, lt=1)


class OptimizerSpec(Record):
    """AdamW (or plain SGD) with linear warm-up and cosine decay to `final_learning_rate`.

    That is 3e-5 unless given, or `learning_rate` where it is lower still.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 3e-4
    final_learning_rate: NonNegativeFloat = FINAL_LEARNING_RATE
    warmup_steps: NonNegativeInt = 10
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    clip_norm: PositiveFloat | None = 1.0

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: object) -> object:
        """Let a low learning rate end where it is, not rise to the default."""
        if not isinstance(data, dict) or data.get("final_learning_rate") is not None:
            return data
        rate = data.get("learning_rate")
        low = isinstance(rate, int | float) and 0 < rate < FINAL_LEARNING_RATE
        return data | ({"final_learning_rate": rate} if low else {})

    @field_validator("final_learning_rate")
    @classmethod
    def _decays(cls, value: float, info: ValidationInfo) -> float:
        rate = info.data.get("learning_rate", value)
        if value > rate:
            raise ValueError(f"must be at most learning_rate = {rate:g}, from which it decays")
        return value


class CheckpointSpec(Record):
    """How often to save (null: only at the end and when asked to stop) and how many to keep."""

    every_steps: PositiveInt | None = None
    keep: PositiveInt = 2


class Job(Record):
    """A training job with its plan in full."""

    kind: Literal["job"] = "job"
    version: Literal[1] = 1
    name: str = "run"
    plan: Plan
    data: DataSpec = Field(default_factory=DataSpec)
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    steps: PositiveInt = 100
    seed: NonNegativeInt = 1234
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    timeout_seconds: Timeout = 600.0  # a rank that waits longer than this ends the job
    trace_step: TracedStep = None  # the step whose timeline is kept
    environment: dict[str, str] = Field(default_factory=dict)
    slurm: SlurmOptions = Field(default_factory=SlurmOptions)  # wins over site.yaml


def _name_or_fields(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("must be the name of a plan's file, or the plan's own fields")
    return value


class _JobFile(Record):
    kind: Literal["job"]
    version: Literal[1] = 1
    name: str = "run"
    plan: Annotated[str | dict[str, Any], BeforeValidator(_name_or_fields)]
    data: DataSpec = Field(default_factory=DataSpec)
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    steps: PositiveInt = 100
    seed: NonNegativeInt = 1234
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    timeout_seconds: Timeout = 600.0
    trace_step: TracedStep = None
    environment: dict[str, str] = Field(default_factory=dict)
    slurm: SlurmOptions = Field(default_factory=SlurmOptions)  # wins over site.yaml


def load_job(path: Path) -> Job:
    """Read a job (or a bare plan, which becomes a job with every default).

    Raises:
        ConfigError: with file, line and column of the first field that is wrong.
    """
    document = read_document(path)
    if isinstance(document.data, dict) and document.data.get("kind") == "plan":
        return Job(name=path.stem, plan=load_plan(path))

    def build() -> Job:
        raw = validate(_JobFile, document.data)
        if isinstance(raw.plan, str):
            plan = load_plan(document.folder / raw.plan)
        else:
            try:
                plan = plan_from_data(raw.plan, document.folder)
            except FieldError as error:
                raise FieldError(("plan", *error.path), error.message) from None
        fields = {name: getattr(raw, name) for name in type(raw).model_fields if name != "plan"}
        if raw.data.path is not None:
            fields["data"] = raw.data.model_copy(update={"path": str(document.folder / raw.data.path)})
        return Job(**fields, plan=plan)

    return document.check(build)


def locate_in_plan(path: Path, error: FieldError) -> ConfigError:
    """Return `error`, at a field of a plan, with its place in the file that a job or plan was read from.

    That is the plan's own file where the job names one.
    """
    document = read_document(path)
    plan = document.data.get("plan") if isinstance(document.data, dict) else None
    if isinstance(plan, str):
        return read_document(document.folder / plan).locate(error.path, error.message)
    return document.locate(error.path if plan is None else ("plan", *error.path), error.message)
