"""CostTable: what `cuboid bench` measured on one machine for one model.

Every entry keeps the shape it was measured at, the spread and the number of samples, so that a reader can
tell a measurement from an interpolation.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from profiles.cluster import Precision
from profiles.documents import Record
from profiles.model import ModelSpec

Component = Literal["block", "embedding", "head"]
Phase = Literal["forward", "backward", "input_gradient", "weight_gradient", "recompute"]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "send_recv"]


class LayerCost(Record):
    """Time of one component in one phase for one microbatch on one rank, collectives excluded.

    `seconds` is the median of `samples` runs with the table's `concurrent_ranks` running at once;
    `spread_seconds` the distance between the quartiles. `mean_seconds` is what many in a row take, each:
    disturbances included, which a median leaves out. A step is such a sum.
    """

    component: Component
    phase: Phase
    microbatch: PositiveInt
    seq_len: PositiveInt
    tp: PositiveInt = 1
    sequence_parallel: bool = False
    recompute: Literal["none", "selective", "full"] = "none"  # what the phase `recompute` runs again
    precision: Precision = "fp32"
    seconds: PositiveFloat
    spread_seconds: NonNegativeFloat
    mean_seconds: PositiveFloat | None = None
    samples: PositiveInt
    activation_bytes: NonNegativeInt = 0  # kept from forward to backward
    workspace_bytes: NonNegativeInt = 0  # peak above that while running
    cpu_seconds: NonNegativeFloat | None = None  # processor time of one run, on machines without accelerator


class CollectiveCost(Record):
    """Time of one collective over `ranks` ranks while `groups` such groups run at once.

    `message_bytes` is the size of the tensor that each rank contributes (all_gather, send_recv), or holds
    before the operation (all_reduce, reduce_scatter). `busy_seconds` is what one adds to ranks that compute
    before and after it, where they communicate with the processors that they compute with: they wait for
    the slower one each time, and others use the processor while they wait.
    """

    operation: Collective
    ranks: PositiveInt
    groups: PositiveInt = 1
    stride: PositiveInt = 1  # distance between neighbours of a group, in ranks
    message_bytes: PositiveInt
    seconds: PositiveFloat
    spread_seconds: NonNegativeFloat
    mean_seconds: PositiveFloat | None = None  # as of a layer
    samples: PositiveInt
    cpu_seconds: NonNegativeFloat | None = None  # processor time of one rank, without accelerator
    busy_seconds: PositiveFloat | None = None  # without accelerator


MEASURED = frozenset(
    {
        "seconds",
        "spread_seconds",
        "mean_seconds",
        "samples",
        "activation_bytes",
        "workspace_bytes",
        "cpu_seconds",
        "busy_seconds",
    }
)


def shape_of(cost: LayerCost | CollectiveCost) -> tuple[object, ...]:
    """Return what was measured, without what was found: entries of the same shape are comparable."""
    return (type(cost).__name__, *(value for name, value in cost if name not in MEASURED))


class OverlapCost(Record):
    """What a block and collectives among all ranks do to each other while both run.

    Factors on the time that each takes alone; 1 means that the other is not felt.
    """

    microbatch: PositiveInt
    message_bytes: PositiveInt
    compute_slowdown: PositiveFloat
    collective_slowdown: PositiveFloat
    samples: PositiveInt


class Calibration(Record):
    """How measured runs changed a table: factors on what `bench` measured, and the errors that justify them.

    Errors are mean absolute relative errors of the step time over `runs`: of the table as it was, of the
    table as it is, and of each run predicted from the others alone (null with fewer than two runs).
    """

    runs: tuple[str, ...]
    factors: dict[str, PositiveFloat]
    error_before: NonNegativeFloat
    error_after: NonNegativeFloat
    error_held_out: NonNegativeFloat | None = None


class CostTable(Record):
    """All measurements of one bench run.

    `optimizer_seconds_per_parameter` is one AdamW step and gradient clip of fp32 state divided by the
    parameters updated. `process_bytes` is the memory of a rank beside its tensors.
    `step_overhead_seconds` is what a step takes beside its pipeline, its reductions and its optimizer.
    """

    kind: Literal["costs"] = "costs"
    version: Literal[1] = 1
    machine: str
    device: str
    model: ModelSpec
    concurrent_ranks: PositiveInt
    cores: PositiveInt | None = None
    matmul_flops_per_second: PositiveFloat | None = None  # one rank, best shape, neighbours busy
    optimizer_seconds_per_parameter: NonNegativeFloat | None = None
    process_bytes: NonNegativeInt | None = None
    step_overhead_seconds: NonNegativeFloat | None = None
    software: dict[str, str] = Field(default_factory=dict)
    layers: tuple[LayerCost, ...] = ()
    collectives: tuple[CollectiveCost, ...] = ()
    overlap: OverlapCost | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
