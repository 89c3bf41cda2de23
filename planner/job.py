"""job.yaml: one training job — its plan, data, optimizer, length and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from planner.plan import Plan, load_plan, plan_from_data
from profiles.documents import Record, read_document, validate
from profiles.errors import FieldError
from profiles.site import SlurmOptions


class DataSpec(Record):
    """Where the tokens come from.

    `path` is a file or folder of text, read as bytes (vocabulary 256); null is the text that every CPython
    carries, the language reference in `pydoc_data.topics`. `holdout` is the share of it kept for evaluation.
    """

    path: str | None = None
    holdout: NonNegativeFloat = 0.02


class OptimizerSpec(Record):
    """AdamW (or plain SGD) with linear warm-up and cosine decay to `final_learning_rate`."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 3e-4
    final_learning_rate: NonNegativeFloat = 3e-5
    warmup_steps: NonNegativeInt = 10
    beta1: NonNegativeFloat = 0.9
    beta2: NonNegativeFloat = 0.95
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    clip_norm: PositiveFloat | None = 1.0


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
    timeout_seconds: PositiveFloat = 600.0  # a rank that waits longer than this ends the job
    trace_step: NonNegativeInt | None = None  # the step whose timeline is kept
    environment: dict[str, str] = Field(default_factory=dict)
    slurm: SlurmOptions = Field(default_factory=SlurmOptions)  # wins over site.yaml


class _JobFile(Record):
    kind: Literal["job"]
    version: Literal[1] = 1
    name: str = "run"
    plan: str | dict[str, Any]
    data: DataSpec = Field(default_factory=DataSpec)
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    steps: PositiveInt = 100
    seed: NonNegativeInt = 1234
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    timeout_seconds: PositiveFloat = 600.0
    trace_step: NonNegativeInt | None = None
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
        return Job(**fields, plan=plan)

    return document.check(build)
