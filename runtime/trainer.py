"""The training loop of one rank, without the process around it: one call is one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.job import Job
from profiles.corpus import Tokens
from profiles.errors import RunError
from runtime.data import Samples
from runtime.executor import StepData
from runtime.learning_rate import learning_rate
from runtime.loss import IGNORED
from runtime.memory import peak_bytes
from runtime.mesh import Mesh
from runtime.optimizer import Optimizer, clip_by_global_norm, counted_once
from runtime.pipeline import Pipeline
from runtime.tensor_parallel import TensorParallel

Asked = Callable[[], tuple[bool, bool]]  # whether this rank was asked to stop, and to save


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What every rank knows after a step. `loss` is the mean over the valid tokens of the global batch."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    stop: bool  # some rank was asked to stop
    save: bool
    peak_bytes: tuple[int, ...]  # by pipeline rank (of the first tp and dp rank)


class Trainer:
    """Runs steps of `job` on this rank's pipeline."""

    def __init__(self, job: Job, *, mesh: Mesh, pipeline: Pipeline, corpus: Tokens) -> None:
        layout, model = job.plan.layout, job.plan.model
        self.job = job
        self._mesh = mesh
        self._pipeline = pipeline
        self._samples = Samples(
            corpus,
            seq_len=model.seq_len,
            global_batch=layout.global_batch,
            seed=job.seed,
            vocab=model.vocab,
        )
        share = layout.microbatches * layout.microbatch
        self._sequences = range(mesh.dp.rank * share, (mesh.dp.rank + 1) * share)
        self._parameters = {name: parameter for name, parameter, _ in pipeline.parameters()}
        tp = TensorParallel(group=mesh.tp.group, rank=mesh.tp.rank, size=mesh.tp.size)
        self._counted = counted_once(pipeline.stages.values(), tp)
        self.optimizer = Optimizer(job.optimizer, self._parameters)

    def step(self, step: int, *, asked: Asked = lambda: (False, False)) -> StepResult:
        """Run step `step` (from 0).

        `asked` is read at the end of the step; the result says what any rank was asked.

        Raises:
            RunError: when the loss is no longer finite.
        """
        recorder = self._pipeline.recorder
        recorder.begin_step(step + 1)
        with recorder.phase("data"):
            data, valid = self._data(step)
        losses = self._pipeline.gradients(data)
        rate = learning_rate(self.job.optimizer, step, self.job.steps)
        with recorder.phase("norm", waits=True):
            norm = clip_by_global_norm(
                self._parameters,
                counted=self._counted,
                groups=[self._mesh.model.group] if self._mesh.model.group is not None else [],
                max_norm=self.job.optimizer.clip_norm,
            )
        with recorder.phase("optimizer"):
            self.optimizer.step(rate)
        with recorder.phase("status", waits=True):
            loss, stopping, saving, peaks = self._agree(losses, valid, *asked())
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RunError(
                f"step {step + 1}: the loss is {loss}, the gradient norm {norm};"
                f" lower optimizer.learning_rate (now {rate:.2e}) or lengthen its warm-up"
            )
        return StepResult(
            step=step + 1,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            stop=stopping,
            save=saving,
            peak_bytes=peaks,
        )

    def _agree(
        self, losses: Mapping[int, Tensor], valid_tokens: int, stop: bool, save: bool
    ) -> tuple[float, bool, bool, tuple[int, ...]]:
        """Tell all ranks the loss, whether any was asked to stop or save, and the pipeline ranks' memory.

        One sum over all ranks; each number is given by one rank, or counts those that asked.
        """
        place = self._mesh.coordinates
        told = torch.zeros(4 + self._mesh.pp.size, dtype=torch.float64)
        if losses and place.tp == 0:
            told[0] = sum(float(loss) for loss in losses.values())
            told[1] = valid_tokens if place.dp == 0 else 0
        told[2], told[3] = stop, save
        if place.tp == 0 and place.dp == 0:
            told[4 + place.pp] = peak_bytes(self._mesh.device)
        told = told.to(self._mesh.device)
        self._mesh.world.all_reduce(told)
        loss, valid, stopping, saving, *peaks = told.tolist()
        return loss / max(1.0, valid), stopping > 0, saving > 0, tuple(map(int, peaks))

    def _data(self, step: int) -> tuple[StepData, int]:
        """Return this pipeline's share of the global batch, and the count of valid tokens of all of it."""
        first, last = 0 in self._pipeline.stages, self.job.plan.layout.stages - 1 in self._pipeline.stages
        if not first and not last:
            return StepData(tokens=None, targets=None, valid_tokens=0), 0
        tokens, targets = self._samples.batch(step, self._sequences)
        layout, device = self.job.plan.layout, self._mesh.device
        shape = (layout.microbatches, layout.microbatch, self.job.plan.model.seq_len)
        valid = 0
        if last:
            count = (targets != IGNORED).sum().to(device)
            self._mesh.dp.all_reduce(count)
            valid = int(count.item())
        data = StepData(
            tokens=tokens.view(shape).to(device) if first else None,
            targets=targets.view(shape).to(device) if last else None,
            valid_tokens=valid,
        )
        return data, valid
