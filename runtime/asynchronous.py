"""Training with a schedule that never flushes within a step: PipeDream and PipeDream-2BW.

Steps overlap, so several of them run as one list of actions, up to the next flush:

    steps 1 … 10 (overlapping) │ flush │ steps 11 … 20 │ flush │ …          layout.overlapped_steps = 10
                               └ one version of the weights: metrics, STOP and SAVE, checkpoints

Flushes lie at fixed steps, whatever is asked meanwhile; a run that was stopped and resumed therefore goes
through the same updates, bit for bit, as one that was not. After a flush delays start again from the newest
weights. The learning rate of an update is that of its step; PipeDream makes one update a microbatch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from planner.job import Job
from planner.schedules import LoweredSchedule, Schedule, updates_of
from profiles.corpus import Tokens
from runtime.batches import Batches
from runtime.executor import Executor
from runtime.learning_rate import learning_rate
from runtime.memory import tensor_bytes
from runtime.mesh import Mesh
from runtime.pipeline import Pipeline, lowered_schedule
from runtime.tensor_parallel import TensorParallel
from runtime.trainer import Asked, StepResult, agree, require_finite, summed
from runtime.weight_versions import AsynchronousUpdates, StageOptimizers


class AsynchronousTrainer:
    """Runs the steps of `job` on this rank's pipeline, from flush to flush."""

    def __init__(self, job: Job, *, mesh: Mesh, pipeline: Pipeline, corpus: Tokens) -> None:
        layout = job.plan.layout
        self.job = job
        self._mesh = mesh
        self._pipeline = pipeline
        self._batches = Batches(
            job.plan.model, layout, mesh=mesh, stages=frozenset(pipeline.stages), corpus=corpus, seed=job.seed
        )
        self._updates = AsynchronousUpdates(
            pipeline.stages,
            reducer=pipeline.reducer,
            spec=job.optimizer,
            tp=TensorParallel(group=mesh.tp.group, rank=mesh.tp.rank, size=mesh.tp.size),
            whole=layout.stages,
            recorder=pipeline.recorder,
        )
        self._executors: dict[int, tuple[Schedule, Executor]] = {}  # by number of steps

    @property
    def optimizer(self) -> StageOptimizers:
        """The optimizers of all stages."""
        return self._updates.optimizer

    def advance(self, step: int, *, asked: Asked = lambda: (False, False)) -> tuple[StepResult, ...]:
        """Run from step `step` (from 0) to the next flush.

        `asked` is read at the flush; all results say what any rank was asked.

        Raises:
            RunError: when the loss is no longer finite.
        """
        layout, recorder = self.job.plan.layout, self._pipeline.recorder
        flush = (step // layout.overlapped_steps + 1) * layout.overlapped_steps
        steps = range(step, min(flush, self.job.steps))
        schedule, executor = self._executor(len(steps))
        per_step = updates_of(schedule) // len(steps)
        recorder.begin_step(step + 1)
        with recorder.phase("data"):
            data, valid = self._batches.of(steps, every=layout.microbatches // per_step)
        self._pipeline.reducer.begin_step()
        self._updates.begin(schedule, self._rate(step, per_step))
        losses = executor.step(data)
        with recorder.phase("status", waits=True):
            norms = self._updates.norms[per_step - 1 :: per_step]
            agreed = agree(
                self._mesh,
                losses=summed(losses, steps=len(steps)),
                valid=[sum(valid[k * per_step : (k + 1) * per_step]) for k in range(len(steps))],
                asked=asked(),
                squares=[sum(float(norm) ** 2 for norm in each.values()) for each in norms],
            )
        results = tuple(
            StepResult(
                step=number + 1,
                loss=agreed.losses[k],
                gradient_norm=sqrt(agreed.squares[k]),
                learning_rate=learning_rate(self.job.optimizer, number, self.job.steps),
                stop=agreed.stop,
                save=agreed.save,
                peak_bytes=agreed.peak_bytes,
            )
            for k, number in enumerate(steps)
        )
        for result in results:
            require_finite(result)
        return results

    def weight_bytes(self) -> int:
        """Return the bytes of this rank's weights with the versions that were kept at once."""
        parameters = [parameter for _, parameter, _ in self._pipeline.parameters()]
        return tensor_bytes(parameters) * self._updates.alive

    def _rate(self, step: int, per_step: int) -> Callable[[int], float]:
        return lambda update: learning_rate(self.job.optimizer, step + update // per_step, self.job.steps)

    def _executor(self, steps: int) -> tuple[Schedule, Executor]:
        """Return the schedule of `steps` overlapping steps and what runs it."""
        if steps not in self._executors:
            lowered: LoweredSchedule = lowered_schedule(self.job.plan.layout, steps=steps)
            executor = Executor(
                stages=self._pipeline.stages,
                lowered=lowered,
                rank=self._mesh.coordinates.pp,
                transport=self._pipeline.transport,
                reducer=self._pipeline.reducer,
                recorder=self._pipeline.recorder,
                updates=self._updates,
            )
            self._executors[steps] = lowered.schedule, executor
        return self._executors[steps]
