"""BenchRequest: what `cuboid bench` asks the runtime to measure."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from profiles.cluster import Precision
from profiles.documents import Record
from profiles.errors import FieldError
from profiles.model import ModelSpec


class BenchRequest(Record):
    """The points to measure and the time to spend on them.

    With `sequence_parallel` and `recompute` those variants are measured too, after everything else.
    `ranks` processes run at once, whatever the tensor-parallel degree of a point: in a job all of them work.
    `message_bytes` null: sizes that the layouts of the model send. `threads` are a rank's intra-op threads.
    """

    kind: Literal["bench"] = "bench"
    version: Literal[1] = 1
    model: ModelSpec
    ranks: PositiveInt
    seconds: PositiveFloat
    microbatches: tuple[PositiveInt, ...] = Field(min_length=1)
    tensor_parallel: tuple[PositiveInt, ...] = Field(min_length=1)
    seq_len: PositiveInt
    precision: Precision = "fp32"
    sequence_parallel: bool = False
    recompute: bool = False
    message_bytes: tuple[PositiveInt, ...] | None = None
    threads: PositiveInt = 1
    cores: PositiveInt | None = None
    machine: str = "this-machine"
    device: str = "cpu"

    @model_validator(mode="after")
    def _check(self) -> Self:
        model = self.model
        for tp in self.tensor_parallel:
            if self.ranks % tp or model.heads % tp or model.kv_heads % tp or model.ffn_hidden % tp:
                raise FieldError(
                    ("tensor_parallel",),
                    f"{tp} does not divide ranks = {self.ranks}, heads = {model.heads},"
                    f" kv_heads = {model.kv_heads} and ffn_hidden = {model.ffn_hidden}",
                )
        if self.sequence_parallel and any(self.seq_len % tp for tp in self.tensor_parallel):
            raise FieldError(
                ("sequence_parallel",),
                f"seq_len = {self.seq_len} is not divisible by every tp of {self.tensor_parallel}",
            )
        if self.seq_len > model.seq_len and model.position == "learned":
            raise FieldError(
                ("seq_len",), f"{self.seq_len} exceeds the {model.seq_len} learned positions of the model"
            )
        return self
