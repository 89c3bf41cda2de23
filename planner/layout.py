"""Layout: how one model is spread over the ranks of a cuboid.

A rank's coordinates are (tp, dp, pp). `rank_order` names the axes from the fastest-varying to the slowest:
with `tp-dp-pp` (Megatron-LM's default order) consecutive ranks first fill tp, then dp, then pp:

    rank = tp_index + tp · (dp_index + dp · pp_index)
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from profiles.cluster import Precision
from profiles.documents import Record
from profiles.errors import FieldError
from profiles.model import ModelSpec

CUSTOM = "custom"  # the schedule of a layout that spells its actions out

Recompute = Literal["none", "selective", "full"]
RankOrder = Literal["tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp", "pp-tp-dp", "pp-dp-tp"]


class Overlap(Record):
    """Which communication runs beside computation."""

    dp: bool = True
    tp: bool = False
    pp: bool = True


class Coordinates(NamedTuple):
    """Place of one rank in the cuboid."""

    tp: int
    dp: int
    pp: int


class Layout(Record):
    """Degrees, batch split, schedule and memory options of one training job."""

    tp: PositiveInt = 1
    pp: PositiveInt = 1
    dp: PositiveInt = 1
    chunks: PositiveInt = 1
    microbatch: PositiveInt = 1
    global_batch: PositiveInt
    schedule: str = "1f1b"
    sequence_parallel: bool = False
    recompute: Recompute | tuple[Recompute, ...] = "none"
    zero: Literal[0, 1, 2, 3] = 0
    precision: Precision = "bf16"
    layers_per_stage: tuple[int, ...] | None = None
    overlap: Overlap = Field(default_factory=Overlap)
    rank_order: RankOrder = "tp-dp-pp"
    actions: tuple[str, ...] | None = None  # of a custom schedule: a row (0F0,0B0 …) a pipeline rank
    flush_every: PositiveInt | None = None  # asynchronous schedules: steps that overlap

    @model_validator(mode="after")
    def _check(self) -> Self:
        sequences = self.dp * self.microbatch
        if self.global_batch % sequences:
            raise FieldError(
                ("global_batch",),
                f"{self.global_batch} is not a multiple of dp · microbatch = {self.dp} · {self.microbatch}"
                f" = {sequences}; use {max(1, self.global_batch // sequences) * sequences}",
            )
        if (self.schedule == CUSTOM) != (self.actions is not None):
            raise FieldError(
                ("schedule",),
                f"'{CUSTOM}' and actions go together; name a family, or a schedule file (.json, .csv)",
            )
        if self.layers_per_stage is not None:
            if len(self.layers_per_stage) != self.stages:
                raise FieldError(
                    ("layers_per_stage",),
                    f"{len(self.layers_per_stage)} entries for pp · chunks = {self.stages} stages",
                )
            if min(self.layers_per_stage) < 0:
                raise FieldError(("layers_per_stage",), "a stage cannot hold fewer than 0 layers")
        if isinstance(self.recompute, tuple) and len(self.recompute) != self.stages:
            raise FieldError(
                ("recompute",), f"{len(self.recompute)} entries for pp · chunks = {self.stages} stages"
            )
        return self

    @property
    def world_size(self) -> int:
        """Ranks of the whole cuboid."""
        return self.tp * self.pp * self.dp

    @property
    def stages(self) -> int:
        """Pipeline stages of the whole model."""
        return self.pp * self.chunks

    @property
    def microbatches(self) -> int:
        """Microbatches that go through one pipeline in one step."""
        return self.global_batch // (self.dp * self.microbatch)

    @property
    def overlapped_steps(self) -> int:
        """Steps between two flushes of an asynchronous schedule, where weights and states can be saved.

        Without `flush_every`: 10, or as many as keep filling and draining the pipeline below 5 % of the time.
        """
        return self.flush_every or max(10, -(-20 * (self.pp - 1) // self.microbatches))

    def recompute_of(self, stage: int) -> Recompute:
        """Return what stage `stage` recomputes."""
        return self.recompute if isinstance(self.recompute, str) else self.recompute[stage]

    def coordinates(self, rank: int) -> Coordinates:
        """Return the place of global rank `rank`."""
        index = {}
        for axis in self.rank_order.split("-"):
            rank, index[axis] = divmod(rank, self._degree(axis))
        return Coordinates(**index)

    def rank(self, coordinates: Coordinates) -> int:
        """Return the global rank at `coordinates`."""
        rank = 0
        for axis in reversed(self.rank_order.split("-")):
            rank = rank * self._degree(axis) + getattr(coordinates, axis)
        return rank

    def stride(self, axis: Literal["tp", "dp", "pp"]) -> int:
        """Return the distance in global ranks between neighbours along `axis`."""
        stride = 1
        for name in self.rank_order.split("-"):
            if name == axis:
                break
            stride *= self._degree(name)
        return stride

    def _degree(self, axis: str) -> int:
        return {"tp": self.tp, "dp": self.dp, "pp": self.pp}[axis]


def check_layout(layout: Layout, model: ModelSpec) -> None:
    """Refuse a layout that cannot hold `model`.

    Raises:
        FieldError: at the field to change, with the values that would work.
    """
    if layout.stages > model.layers:
        raise FieldError(
            ("pp",),
            f"pp · chunks = {layout.pp} · {layout.chunks} = {layout.stages} stages for"
            f" {model.layers} layers; use at most {model.layers}",
        )
    split = {
        f"{model.heads} heads": model.heads,
        f"{model.kv_heads} key/value heads": model.kv_heads,
        f"ffn_hidden = {model.ffn_hidden}": model.ffn_hidden,
    }
    for what, count in split.items():
        if count % layout.tp:
            usable = _divisors(*split.values())
            raise FieldError(("tp",), f"{layout.tp} does not divide {what}; use {usable}")
    if layout.sequence_parallel and model.seq_len % layout.tp:
        raise FieldError(
            ("sequence_parallel",),
            f"tp = {layout.tp} does not divide seq_len = {model.seq_len}; set it to false",
        )
    if layout.layers_per_stage is not None and sum(layout.layers_per_stage) != model.layers:
        raise FieldError(
            ("layers_per_stage",),
            f"sums to {sum(layout.layers_per_stage)}, the model has {model.layers} layers",
        )


def _divisors(*counts: int) -> str:
    common = [d for d in range(1, min(counts) + 1) if all(count % d == 0 for count in counts)]
    return ", ".join(map(str, common[:-1])) + f" or {common[-1]}" if len(common) > 1 else "1"
