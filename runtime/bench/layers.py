"""Time of the runtime's own blocks, embedding and head, one phase at a time.

    whole   forward ─ backward                           a B action
    split   forward ─ input_gradient ─ weight_gradient   I and W actions

Both are measured in turn, so that drift of the machine meets both alike. Tensor-parallel layers have the
width that one of `tp` ranks holds, while their collectives move nothing: what is measured is the computation;
the collectives are measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from profiles.bench_request import BenchRequest
from profiles.cluster import Precision
from profiles.model import ModelSpec
from runtime.bench.measured import Footprint, Measured
from runtime.bench.points import LayerPoint
from runtime.bench.ranks import Place
from runtime.bench.silent import SilentGroups
from runtime.bench.stopwatch import Lap, Stopwatch, stopwatch
from runtime.bench.storage import LiveStorages
from runtime.models import Stage, build_stage
from runtime.tensor_parallel import TensorParallel

# A step meets weights and gradients in memory: so many blocks are run that no cache holds theirs.
CACHE_BYTES = 64 << 20
SAMPLE_SECONDS = 0.004
SHARED_SAMPLE_SECONDS = 0.03  # with more ranks than cores a sample must outlast several time slices
SEED = 1234

DTYPES: dict[Precision, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class LayerBench:
    """Measures layer points; keeps the stage it built last, since neighbours in the list share it."""

    def __init__(self, request: BenchRequest, place: Place) -> None:
        self._request, self._place = request, place
        self._groups = SilentGroups(place)
        self._key: LayerPoint | None = None
        self._footprints: dict[LayerPoint, Footprint] = {}
        self._stage: Stage | None = None
        crowded = request.cores is not None and request.ranks > request.cores
        self._sample_seconds = SHARED_SAMPLE_SECONDS if crowded else SAMPLE_SECONDS

    def stage(self, point: LayerPoint) -> Stage:
        """Return the stage that holds the point's component alone."""
        key = replace(point, microbatch=1)
        if self._stage is None or key != self._key:
            self._stage = None  # let go of the old before the new is made
            tp = TensorParallel(group=self._groups.group(point), rank=0, size=point.tp)
            self._stage = build_stage(
                self._request.model,
                layers=range(self.blocks(point)) if point.component == "block" else range(0),
                first=point.component == "embedding",
                last=point.component == "head",
                tp=tp,
                seed=SEED,
                dtype=DTYPES[point.precision],
                device=self._place.device,
                recompute=point.recompute,
                sequence_parallel=point.sequence_parallel,
            )
            self._key = key
        return self._stage

    def let_go(self) -> None:
        """Drop the stage that was built last."""
        self._stage = self._key = None

    def blocks(self, point: LayerPoint) -> int:
        """Return how many blocks are run in a row; results are per block."""
        if point.component != "block":
            return 1
        model = self._request.model
        size = 2 * model.block_parameters * DTYPES[point.precision].itemsize // point.tp
        return min(model.layers, -(-CACHE_BYTES // size))

    def sample(self, point: LayerPoint, *, window_seconds: float, least: int) -> Measured:
        """Measure a point for about `window_seconds`, at least `least` samples of each phase."""
        run = _Run(self.stage(point), self._batch(point), self._place.device)
        run.whole()  # gradients exist from now on, as they do from a step's second microbatch on
        begin = time.perf_counter()
        run.split()
        once = time.perf_counter() - begin
        runs = max(1, round(self._sample_seconds / once))
        share = 1.0 / (runs * self.blocks(point))
        watch, measured = stopwatch(self._place.device), Measured()
        end = time.perf_counter() + window_seconds
        count = 0
        while time.perf_counter() < end or count < least:
            count += 1
            for measure in (run.whole, run.split):
                for _ in range(runs):
                    measure(watch)
                for name, lap in watch.read().items():
                    cpu = None if lap.cpu_seconds is None else lap.cpu_seconds * share
                    measured.laps.setdefault(name, []).append(Lap(lap.seconds * share, cpu))
        measured.footprint = self._footprint(run, point)
        return measured

    def whole(self, point: LayerPoint) -> Callable[[], None]:
        """Return a call that does one forward and backward of the point's stage."""
        return _Run(self.stage(point), self._batch(point), self._place.device).whole

    def _footprint(self, run: _Run, point: LayerPoint) -> Footprint:
        if point in self._footprints:
            return self._footprints[point]
        kept, peak = run.footprint()
        self._footprints[point] = Footprint(
            activation_bytes=kept // self.blocks(point), workspace_bytes=max(0, peak - kept)
        )
        return self._footprints[point]

    def _batch(self, point: LayerPoint) -> _Batch:
        return make_batch(self._request.model, point, self._request.seq_len, device=self._place.device)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    inputs: Tensor
    targets: Tensor | None
    gradient: Tensor | None


def make_batch(model: ModelSpec, point: LayerPoint, seq_len: int, *, device: torch.device) -> _Batch:
    """Return inputs (and targets, or the gradient from above) of one microbatch, from a fixed seed.

    With sequence parallelism the hidden states between layers are a rank's positions only.
    """
    generator = torch.Generator().manual_seed(SEED)
    shape = (point.microbatch, seq_len)
    tokens = torch.randint(model.vocab, shape, generator=generator).to(device)
    positions = seq_len // point.tp if point.sequence_parallel else seq_len
    hidden = torch.randn((point.microbatch, positions, model.hidden), generator=generator)
    hidden = hidden.to(device=device, dtype=DTYPES[point.precision])
    return _Batch(
        inputs=tokens if point.component == "embedding" else hidden.requires_grad_(),
        targets=tokens if point.component == "head" else None,
        gradient=None if point.component == "head" else torch.full_like(hidden, 1e-3),
    )


class _Run:
    """The phases of one microbatch through one stage."""

    def __init__(self, stage: Stage, batch: _Batch, device: torch.device) -> None:
        self._stage, self._batch, self._device = stage, batch, device

    def whole(self, watch: Stopwatch | None = None) -> None:
        """Forward, then the whole backward."""
        lap = _lapper(watch)
        output = self._forward()
        lap("forward")
        self._backward(output)
        lap("backward")

    def split(self, watch: Stopwatch | None = None) -> None:
        """Forward (not reported again), then the two halves of the backward."""
        output = self._forward()
        lap = _lapper(watch)
        with self._stage.deferred.collecting(0):
            self._backward(output)
        lap("input_gradient")
        self._stage.deferred.run(0)
        lap("weight_gradient")

    def footprint(self) -> tuple[int, int]:
        """Return bytes kept from forward to backward, and the peak of both, above what was there before."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            output = self._forward()
            kept = torch.cuda.memory_allocated(self._device) - before
            self._backward(output)
            return kept, torch.cuda.max_memory_allocated(self._device) - before
        with LiveStorages() as storages:
            output = self._forward()
            kept = storages.live_bytes
            self._backward(output)
        return kept, storages.peak_bytes

    def _forward(self) -> Tensor:
        self._batch.inputs.grad = None
        output: Tensor = self._stage(self._batch.inputs, self._batch.targets)
        return output

    def _backward(self, output: Tensor) -> None:
        torch.autograd.backward([output], [self._batch.gradient])


def _lapper(watch: Stopwatch | None) -> Callable[[str], None]:
    if watch is None:
        return lambda name: None
    watch.start()
    return watch.lap
