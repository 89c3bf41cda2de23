"""This rank's part of a pipeline, put together: stages, tie, reducer, transport, executor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from planner.costs import stage_layers
from planner.layout import Layout
from planner.layout_schedule import schedule_of
from planner.schedules import LoweredSchedule, Schedule, check_cells, check_lowered, lower
from profiles.model import ModelSpec
from runtime.data_parallel import GradientReducer
from runtime.executor import Executor, StepData
from runtime.mesh import Edge, Mesh
from runtime.models import Stage, build_stage
from runtime.recorder import Recorder
from runtime.tensor_parallel import ShardSpec, TensorParallel, sum_partial_gradients
from runtime.ties import Tie, tie_stages
from runtime.transport import Transport

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def proved(schedule: Schedule) -> LoweredSchedule:
    """Lower `schedule` and prove both before anything runs.

    Raises:
        ScheduleRefused: with rank, position and cell.
    """
    check_cells(schedule)
    lowered = lower(schedule)
    check_lowered(lowered)
    return lowered


def lowered_schedule(layout: Layout, *, steps: int = 1) -> LoweredSchedule:
    """Return the proved action lists of `layout`: of `steps` steps where its schedule overlaps them.

    Raises:
        ScheduleError: when the family has no schedule for these numbers.
    """
    return proved(schedule_of(layout, steps=steps))


def message_edges(lowered: LoweredSchedule) -> set[Edge]:
    """Return the (source, target) pairs of pipeline ranks between which messages go."""
    return {
        (rank, action.peer)
        for rank, actions in enumerate(lowered.actions)
        for action in actions
        if action.kind.name.startswith("SEND")
    }


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Everything of one pipeline rank that runs a step up to the reduced gradients."""

    mesh: Mesh
    stages: dict[int, Stage]
    tie: Tie | None
    reducer: GradientReducer
    executor: Executor
    transport: Transport | None  # None in a pipeline of one rank
    recorder: Recorder

    def gradients(self, data: StepData) -> dict[int, Tensor]:
        """Run one step's forwards and backwards and reduce; return the losses by microbatch."""
        self.reducer.begin_step()
        losses = self.executor.step(data)
        with self.recorder.phase("gradients", waits=True):
            self.reducer.finish()
            for module in self.stages.values():
                sum_partial_gradients(dict(module.named_parameters()), module.shards(), self._tp)
        return losses

    @property
    def _tp(self) -> TensorParallel:
        return TensorParallel(group=self.mesh.tp.group, rank=self.mesh.tp.rank, size=self.mesh.tp.size)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter, ShardSpec]]:
        """Yield (global name, parameter, how tp shards it); a weight shared by two stages once."""
        seen: set[int] = set()
        for module in self.stages.values():
            shards = module.shards()
            for name, parameter in module.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield name, parameter, shards[name]


def build_pipeline(
    model: ModelSpec, layout: Layout, *, mesh: Mesh, lowered: LoweredSchedule, seed: int, recorder: Recorder
) -> Pipeline:
    """Build this rank's stages of `model` and what runs them."""
    rank = mesh.coordinates.pp
    dtype = DTYPES[layout.precision]
    bounds = list(pairwise([0, *accumulate(stage_layers(model, layout))]))
    stages = {
        stage: build_stage(
            model,
            layers=range(*bounds[stage]),
            first=stage == 0,
            last=stage == layout.stages - 1,
            tp=TensorParallel(group=mesh.tp.group, rank=mesh.tp.rank, size=mesh.tp.size),
            seed=seed,
            dtype=dtype,
            device=mesh.device,
            recompute=layout.recompute_of(stage),
            sequence_parallel=layout.sequence_parallel,
        )
        for stage in lowered.schedule.stages_of(rank)
    }
    tie = tie_stages(stages, mesh)
    reducer = GradientReducer(
        {stage: list(module.parameters()) for stage, module in stages.items()},
        axis=mesh.dp,
        tie=tie,
    )
    transport = None
    if mesh.pp.size > 1:
        width = model.seq_len // (layout.tp if layout.sequence_parallel else 1)
        transport = Transport(
            mesh, shape=(layout.microbatch, width, model.hidden), dtype=dtype, unclaimed=4 * layout.stages
        )
    executor = Executor(
        stages=stages, lowered=lowered, rank=rank, transport=transport, reducer=reducer, recorder=recorder
    )
    return Pipeline(
        mesh=mesh,
        stages=stages,
        tie=tie,
        reducer=reducer,
        executor=executor,
        transport=transport,
        recorder=recorder,
    )
