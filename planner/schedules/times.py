"""How long each stage takes, and how long data travels between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.schedules.action import Kind
from profiles.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Durations of one microbatch, per stage, in seconds (or any one unit).

    Attributes:
        forward, input_gradient, weight_gradient: one value per stage.
        backward: a whole backward per stage; input plus weight gradient where left out.
        update: one optimizer step per stage (asynchronous families); 0 where left out.
        latency: between the end of an action and the arrival of its data on another rank.
        wire: additional seconds per boundary s → s + 1, during which the directed link between the two ranks
            carries nothing else (bytes / bandwidth); 0 where left out.
    """

    forward: tuple[float, ...]
    input_gradient: tuple[float, ...]
    weight_gradient: tuple[float, ...]
    backward: tuple[float, ...] = ()
    update: tuple[float, ...] = ()
    latency: float = 0.0
    wire: tuple[float, ...] = ()
    table: tuple[tuple[float, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        stages = len(self.forward)
        whole = self.backward or tuple(
            i + w for i, w in zip(self.input_gradient, self.weight_gradient, strict=True)
        )
        update = self.update or (0.0,) * stages
        object.__setattr__(self, "backward", whole)
        object.__setattr__(self, "update", update)
        object.__setattr__(self, "wire", self.wire or (0.0,) * (stages - 1))
        # Indexed by Kind: F, B, I, W, U.
        object.__setattr__(
            self, "table", (self.forward, whole, self.input_gradient, self.weight_gradient, update)
        )
        if {len(row) for row in self.table} != {stages} or len(self.wire) != stages - 1:
            raise ConfigError(f"times are needed for each of {stages} stages and {stages - 1} boundaries")
        if min((self.latency, *self.wire, *(value for row in self.table for value in row))) < 0:
            raise ConfigError("a stage cannot take negative time")

    @property
    def stages(self) -> int:
        """Stages of the whole model."""
        return len(self.forward)

    def work(self, placement: Sequence[int], microbatches: int, *, split: bool) -> list[float]:
        """Return the seconds that each rank computes, with backwards `split` into I and W or whole."""
        seconds = [0.0] * (max(placement) + 1)
        for stage, rank in enumerate(placement):
            backward = (
                self.input_gradient[stage] + self.weight_gradient[stage] if split else self.backward[stage]
            )
            seconds[rank] += microbatches * (self.forward[stage] + backward)
        return seconds

    def of(self, kind: Kind, stage: int) -> float:
        """Return the duration of a compute action."""
        return self.table[kind][stage]

    @classmethod
    def uniform(
        cls,
        *,
        stages: int,
        chunks: int = 1,
        forward: float = 1.0,
        input_gradient: float = 1.0,
        weight_gradient: float = 1.0,
        backward: float | None = None,
        latency: float = 0.0,
        wire: float = 0.0,
    ) -> StageTimes:
        """Return equal times for all stages, given for all `chunks` stages of a rank together."""
        return cls(
            forward=(forward / chunks,) * stages,
            input_gradient=(input_gradient / chunks,) * stages,
            weight_gradient=(weight_gradient / chunks,) * stages,
            backward=() if backward is None else (backward / chunks,) * stages,
            latency=latency,
            wire=(wire,) * (stages - 1),
        )

    @classmethod
    def per_rank(
        cls, rows: Sequence[Sequence[float]], *, placement: Sequence[int], latency: float = 0.0
    ) -> StageTimes:
        """Return times from three rows (F, I, W) given per rank; each of a rank's stages takes its share."""
        held = [placement.count(rank) for rank in placement]
        forward, input_gradient, weight_gradient = (
            tuple(row[rank] / count for rank, count in zip(placement, held, strict=True)) for row in rows
        )
        return cls(
            forward=forward, input_gradient=input_gradient, weight_gradient=weight_gradient, latency=latency
        )
