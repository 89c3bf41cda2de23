"""Estimate: what a layout costs, in time by category and in memory by rank; predicted, or measured."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from profiles.documents import Record


class TimeBreakdown(Record):
    """Exposed seconds of one step on the slowest rank; they sum to `step_seconds`."""

    forward: NonNegativeFloat = 0.0
    backward: NonNegativeFloat = 0.0
    recompute: NonNegativeFloat = 0.0
    tp_comm: NonNegativeFloat = 0.0
    pp_comm: NonNegativeFloat = 0.0
    dp_comm: NonNegativeFloat = 0.0
    optimizer: NonNegativeFloat = 0.0
    bubble: NonNegativeFloat = 0.0


class RankMemory(Record):
    """Bytes of one rank at its peak, by class."""

    rank: NonNegativeInt
    weights: NonNegativeFloat
    gradients: NonNegativeFloat
    optimizer: NonNegativeFloat
    activations: NonNegativeFloat
    workspace: NonNegativeFloat
    total: NonNegativeFloat


class Memory(Record):
    """Memory of the pipeline ranks (the tp and dp neighbours of each hold the same)."""

    peak_bytes: NonNegativeFloat
    per_stage: tuple[RankMemory, ...] = ()


class Estimate(Record):
    """What a layout is expected to cost, or (as a record) what a run measured.

    `model_flops_per_device` is the model's FLOPs of one step, recomputation excluded, per second and device.
    `provenance` says for every group of numbers where it comes from.
    """

    step_seconds: NonNegativeFloat
    tokens_per_second: NonNegativeFloat
    model_flops_per_device: NonNegativeFloat
    mfu: NonNegativeFloat | None = None
    hfu: NonNegativeFloat | None = None
    fits: bool = True
    step_seconds_low: NonNegativeFloat | None = None  # 80 % of similar published runs lie between these two
    step_seconds_high: NonNegativeFloat | None = None
    bubble_fraction: NonNegativeFloat = 0.0
    time: TimeBreakdown
    memory: Memory
    provenance: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
