"""One run of one rank, from the first step to the last: steps, metrics, checkpoints, trace, record."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from planner.estimate import RankMemory
from planner.job import Job
from planner.schedules import LoweredSchedule, StepTimeline
from profiles.corpus import Tokens, fingerprint
from profiles.documents import plain, write_text
from runtime.allocator import give_back_unused
from runtime.asynchronous import AsynchronousTrainer
from runtime.checkpoint import Checkpointer
from runtime.events import append_event
from runtime.memory import peak_bytes, tensor_bytes
from runtime.mesh import build_mesh
from runtime.metrics import MetricsWriter
from runtime.pipeline import build_pipeline, message_edges
from runtime.record import measured, typical, typical_seconds
from runtime.recorder import Recorder
from runtime.stop import StopSignals, take_switch
from runtime.trace import RankTimes, cells, rank_times, write_trace
from runtime.trainer import Advancing, StepResult, Trainer
from runtime.warm_up import warm_up
from runtime.watchdog import say

Own = TypeVar("Own")

TRIM_STEPS = 20  # between two returns of unused memory on a CPU
TRACED_STEP = 5  # counted from the first step after a start: by then everything is allocated


class Session:
    """Everything one rank holds for a run. All ranks make one, and call `train`, together."""

    def __init__(
        self,
        job: Job,
        run: Path,
        *,
        lowered: LoweredSchedule,
        corpus: Tokens,
        device: torch.device,
        recorder: Recorder,
    ) -> None:
        self._job = job
        self._run = run
        self._recorder = recorder
        layout = job.plan.layout
        recorder.begin("process groups")
        self._mesh = build_mesh(
            layout,
            placement=lowered.schedule.placement,
            device=device,
            edges=message_edges(lowered),
            timeout_seconds=job.timeout_seconds,
        )
        self._base_bytes = peak_bytes(device)
        recorder.begin("model")
        self._pipeline = build_pipeline(
            job.plan.model, layout, mesh=self._mesh, lowered=lowered, seed=job.seed, recorder=recorder
        )
        recorder.begin("warm-up")
        warm_up(self._pipeline, job.plan.model, layout)
        kind = Trainer if lowered.schedule.flush else AsynchronousTrainer
        self._trainer: Advancing = kind(job, mesh=self._mesh, pipeline=self._pipeline, corpus=corpus)
        self._checkpointer = Checkpointer(
            run / "checkpoints",
            mesh=self._mesh,
            pipeline=self._pipeline,
            optimizer=self._trainer.optimizer,
            keep=job.checkpoint.keep,
            data=fingerprint(corpus),
            warn=self._warn,
        )
        self._metrics = MetricsWriter(job, run) if self._mesh.rank == 0 else None
        self._times: list[RankTimes] = []
        self._step_seconds: list[float] = []
        self._switch: str | None = None  # why the file STOP was laid
        self._last = (0.0, 0.0)  # begin and duration of what `_advance` ran last

    def train(self, *, resume: bool, signals: StopSignals) -> None:
        """Run to the last step, or until some rank is asked to stop."""
        job = self._job
        start = 0
        if resume:
            self._recorder.begin("load")
            start = self._checkpointer.load_last()
        self._event("resumed" if start else "started", start)
        traced = job.trace_step or min(start + TRACED_STEP, job.steps)
        step, result = start, None
        while step < job.steps:
            results = self._advance(step, signals)
            before, result = step, results[-1]
            step = result.step
            if self._mesh.device.type == "cpu" and step // TRIM_STEPS > before // TRIM_STEPS:
                give_back_unused()
            if before < traced <= step:
                self._trace(results)
            every, last = job.checkpoint.every_steps, step == job.steps
            if result.stop or result.save or last or (every and step // every > before // every):
                self._save(step)
            if result.stop and not last:
                self._record(result.peak_bytes)
                self._event("stopped", step, reason=self._switch or signals.reason or "STOP")
                return
        if result is not None:
            self._record(result.peak_bytes)
        self._event("finished", job.steps)

    def _advance(self, step: int, signals: StopSignals) -> tuple[StepResult, ...]:
        """Run step `step`, and those that overlap with it, each of which counts with an equal share."""
        began = time.perf_counter()
        results = self._trainer.advance(step, asked=lambda: self._asked(signals))
        seconds = time.perf_counter() - began
        self._last = (began, seconds)
        count = len(results)
        self._times.append(rank_times(self._recorder.spans, seconds).share(count))
        for result in results:
            self._step_seconds.append(seconds / count)
            if self._metrics is not None:
                self._metrics.write(result, seconds / count)
        return results

    def _asked(self, signals: StopSignals) -> tuple[bool, bool]:
        """Return whether this rank was asked to stop and to save; the first rank looks for the files."""
        if self._mesh.rank != 0:
            return signals.reason is not None, False
        text = take_switch(self._run, "STOP")
        if text is not None:  # a person's wish, and so stronger than a signal; or the launcher's own
            self._switch = "time-limit" if text == "time-limit" else "STOP"
        return self._switch is not None or signals.reason is not None, take_switch(
            self._run, "SAVE"
        ) is not None

    def _event(self, event: str, step: int, **fields: object) -> None:
        if self._mesh.rank == 0:
            append_event(self._run, event, step=step, **fields)

    def _warn(self, text: str) -> None:
        say(f"warning: {text}")
        self._event("warning", self._recorder.step, text=text)

    def _save(self, step: int) -> None:
        self._recorder.begin("checkpoint")
        self._checkpointer.save(step)
        self._event("checkpoint", step)

    def _of_pipeline(self, mine: Own) -> list[Own]:
        """Return every pipeline rank's object, on all of them."""
        if self._mesh.pp.group is None:
            return [mine]
        gathered: list[Any] = [None] * self._mesh.pp.size
        dist.all_gather_object(gathered, mine, group=self._mesh.pp.group)
        return gathered

    def _trace(self, results: tuple[StepResult, ...]) -> None:
        """Write the timeline of these steps of the first pipeline.

        Clocks of different nodes are joined by wall-clock time, so they agree as well as NTP makes them.
        """
        if self._mesh.coordinates.tp or self._mesh.coordinates.dp:
            return
        self._recorder.begin("trace")
        shift = time.time() - time.perf_counter()
        ranks = self._of_pipeline((shift, self._last, self._recorder.spans))
        if self._mesh.rank != 0:
            return
        origin = min(own + began for own, (began, _), _ in ranks)
        first, last = results[0].step, results[-1].step
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        extents = tuple((own + began - origin, seconds) for own, (began, seconds), _ in ranks)
        timeline = StepTimeline(
            title=f"{self._job.name}, {steps}",
            cells=tuple(
                cell
                for rank, (own, _, spans) in enumerate(ranks)
                for cell in cells(spans, rank=rank, origin=origin - own)
            ),
            seconds=max(begin + seconds for begin, seconds in extents),
            steps=len(results),
            steps_of=extents,
        )
        write_trace(self._run / "trace.json", timeline)

    def _record(self, peaks: tuple[int, ...]) -> None:
        """Write what was measured."""
        self._recorder.begin("record")
        parameters = [parameter for _, parameter, _ in self._pipeline.parameters()]
        weights = self._trainer.weight_bytes()
        gradients = tensor_bytes(p.grad for p in parameters if p.grad is not None)
        optimizer = tensor_bytes(self._trainer.optimizer.state_dict().values())
        held = (weights, gradients, optimizer, self._base_bytes, typical(self._times))
        ranks = self._of_pipeline(held)
        if self._mesh.rank != 0:
            return
        memory = [
            RankMemory(
                rank=rank,
                weights=weights,
                gradients=gradients,
                optimizer=optimizer,
                activations=max(0, peak - weights - gradients - optimizer - base),
                workspace=base,
                total=peak,
            )
            for rank, (peak, (weights, gradients, optimizer, base, _)) in enumerate(
                zip(peaks, ranks, strict=True)
            )
        ]
        estimate = measured(
            self._job,
            times=[times for *_, times in ranks],
            memory=memory,
            step_seconds=typical_seconds(self._step_seconds),
        )
        timeline = [
            {"rank": rank, "busy": times.busy, "wait": times.wait, "idle": times.idle, "step": times.step}
            for rank, (*_, times) in enumerate(ranks)
        ]
        data = plain(estimate) | {"steps": len(self._step_seconds), "ranks": timeline}
        write_text(self._run / "record.json", json.dumps(data, indent=2) + "\n")
