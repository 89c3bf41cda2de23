"""The training loop of one rank, without the process around it: one call is one or a few optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from planner.job import Job
from profiles.corpus import Tokens
from profiles.errors import RunError
from runtime.batches import Batches
from runtime.learning_rate import learning_rate
from runtime.memory import peak_bytes, tensor_bytes
from runtime.mesh import Mesh
from runtime.optimizer import Optimizer, SavedOptimizer, clip_to_norm, counted_once, squared_norm
from runtime.pipeline import Pipeline
from runtime.recorder import Recorder
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


class Advancing(Protocol):
    """A trainer: of a schedule with a flush, one step at a time; of an asynchronous one, several."""

    @property
    def optimizer(self) -> SavedOptimizer:
        """What holds the optimizer's state between two calls of `advance`."""

    def advance(self, step: int, *, asked: Asked) -> tuple[StepResult, ...]:
        """Run step `step` (from 0), and those that overlap with it."""

    def weight_bytes(self) -> int:
        """Return the bytes of all weights of this rank at their most."""


class Trainer:
    """Runs steps of `job` on this rank's pipeline."""

    def __init__(self, job: Job, *, mesh: Mesh, pipeline: Pipeline, corpus: Tokens) -> None:
        layout, model = job.plan.layout, job.plan.model
        self.job = job
        self._mesh = mesh
        self._pipeline = pipeline
        self._batches = Batches(
            model, layout, mesh=mesh, stages=frozenset(pipeline.stages), corpus=corpus, seed=job.seed
        )
        self._parameters = {name: parameter for name, parameter, _ in pipeline.parameters()}
        tp = TensorParallel(group=mesh.tp.group, rank=mesh.tp.rank, size=mesh.tp.size)
        self._counted = counted_once(pipeline.stages.values(), tp)
        self.optimizer = Optimizer(job.optimizer, self._parameters)

    def advance(self, step: int, *, asked: Asked = lambda: (False, False)) -> tuple[StepResult, ...]:
        """Run step `step` (from 0).

        `asked` is read at the end of the step; the result says what any rank was asked.

        Raises:
            RunError: when the loss is no longer finite.
        """
        recorder = self._pipeline.recorder
        recorder.begin_step(step + 1)
        with recorder.phase("data"):
            data, valid = self._batches.of(range(step, step + 1), every=self.job.plan.layout.microbatches)
        losses = self._pipeline.gradients(data)
        rate = learning_rate(self.job.optimizer, step, self.job.steps)
        norm = self._clip(recorder)
        with recorder.phase("optimizer"):
            self.optimizer.step(rate)
        with recorder.phase("status", waits=True):
            agreed = agree(self._mesh, losses=summed(losses, steps=1), valid=valid, asked=asked())
        result = StepResult(
            step=step + 1,
            loss=agreed.losses[0],
            gradient_norm=norm,
            learning_rate=rate,
            stop=agreed.stop,
            save=agreed.save,
            peak_bytes=agreed.peak_bytes,
        )
        require_finite(result)
        return (result,)

    def _clip(self, recorder: Recorder) -> float:
        """Clip by the global norm and return it; ranks that are done early wait for the others' share."""
        group = self._mesh.model.group
        with recorder.phase("norm"):
            square = squared_norm(self._parameters, counted=self._counted)
        with recorder.phase("norm"):
            recorder.waits()
            if group is not None:
                dist.all_reduce(square, group=group)
            recorder.waited()
            return clip_to_norm(self._parameters, square=square, max_norm=self.job.optimizer.clip_norm).item()

    def weight_bytes(self) -> int:
        """Return the bytes of this rank's weights."""
        return tensor_bytes(self._parameters.values())


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What all ranks know after `agree`."""

    losses: tuple[float, ...]
    squares: tuple[float, ...]
    stop: bool
    save: bool
    peak_bytes: tuple[int, ...]


def agree(
    mesh: Mesh,
    *,
    losses: Sequence[float],
    valid: Sequence[int],
    asked: tuple[bool, bool],
    squares: Sequence[float] = (),
) -> Agreed:
    """Tell all ranks the losses, whether any was asked to stop or save, and the pipeline ranks' memory.

    One sum over all ranks; each number is given by one rank of a tensor-parallel group, or counts those that
    asked. `losses` are sums over this pipeline's tokens, `valid` the tokens of the whole batch, step by step,
    zero on ranks that have none; `squares` are those of gradient norms, to be added over the pipeline.
    """
    place, steps = mesh.coordinates, len(losses)
    told = torch.zeros(2 * steps + len(squares) + 2 + mesh.pp.size, dtype=torch.float64)
    peaks = 2 * steps + len(squares) + 2
    if place.tp == 0:
        told[:steps] = torch.tensor(losses, dtype=torch.float64)
    if place.tp == 0 and place.dp == 0:
        told[steps : 2 * steps] = torch.tensor(valid, dtype=torch.float64)
        told[2 * steps : peaks - 2] = torch.tensor(squares, dtype=torch.float64)
        told[peaks + place.pp] = peak_bytes(mesh.device)
    told[peaks - 2], told[peaks - 1] = asked
    told = told.to(mesh.device)
    mesh.world.all_reduce(told)
    found = told.tolist()
    return Agreed(
        losses=tuple(
            loss / max(1.0, count)
            for loss, count in zip(found[:steps], found[steps : 2 * steps], strict=True)
        ),
        squares=tuple(found[2 * steps : peaks - 2]),
        stop=found[peaks - 2] > 0,
        save=found[peaks - 1] > 0,
        peak_bytes=tuple(map(int, found[peaks:])),
    )


def summed(losses: Mapping[int, Tensor], *, steps: int) -> list[float]:
    """Return the sum of the microbatches' losses for each of `steps` steps; zeros where there are none."""
    sums = [0.0] * steps
    for microbatch in sorted(losses):
        sums[microbatch * steps // len(losses)] += float(losses[microbatch])
    return sums


def require_finite(result: StepResult) -> None:
    """Refuse to go on from a step whose numbers are not finite.

    Raises:
        RunError: naming the step and what usually helps.
    """
    if not math.isfinite(result.loss) or not math.isfinite(result.gradient_norm):
        raise RunError(
            f"step {result.step}: the loss is {result.loss}, the gradient norm {result.gradient_norm};"
            f" lower optimizer.learning_rate (now {result.learning_rate:.2e}) or lengthen its warm-up"
        )
