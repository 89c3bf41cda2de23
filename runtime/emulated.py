"""Stages that wait instead of computing, and messages that an emulated interconnect delays.

A stage's forward and backward go through autograd like those of a model, so that the executor does all of its
work: only the arithmetic is replaced, by waiting as long as it would take. A message carries the time it was
sent; the receiver takes it when an interconnect of the given speed would have delivered it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from planner.schedules import StageTimes
from runtime.linear import DeferredGradients
from runtime.mesh import Mesh
from runtime.transport import Arrival, Transport

SPIN_SECONDS = 1e-4  # the end of a wait is not left to the scheduler
_TIMER_SLACK = 29  # PR_SET_TIMERSLACK of <linux/prctl.h>


def wait_precisely() -> None:
    """Let this thread's sleeps end within a microsecond instead of fifty, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_TIMER_SLACK, 1)


def wait_until(moment: float) -> None:
    """Return at `moment` of `time.perf_counter`."""
    left = moment - time.perf_counter() - SPIN_SECONDS
    if left > 0:
        time.sleep(left)
    while time.perf_counter() < moment:
        pass


class _Timed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, stage: EmulatedStage, began: float) -> Tensor:
        ctx.stage = stage
        result = inputs.new_zeros(()) if stage.last else inputs + 0.0
        wait_until(began + stage.forward_seconds)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        stage = ctx.stage
        began, result = stage.clock(), gradient.expand(stage.shape).clone()
        if stage.deferred.active:
            stage.deferred.add(lambda: wait_until(stage.clock() + stage.weight_seconds))
            wait_until(began + stage.input_seconds)
        else:
            wait_until(began + stage.backward_seconds)
        return result, None, None


class EmulatedStage:
    """One stage of a pipeline that takes `times` and computes nothing.

    `clock` says when the running cell began. With `Recorder.ready` what the host does inside a cell goes on
    beside the emulated device, as beside a real one; by default a cell begins when the stage is called.
    """

    def __init__(
        self,
        times: StageTimes,
        stage: int,
        shape: tuple[int, ...],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = clock
        self.deferred = DeferredGradients()
        self.forward_seconds = times.forward[stage]
        self.backward_seconds = times.backward[stage]
        self.input_seconds = times.input_gradient[stage]
        self.weight_seconds = times.weight_gradient[stage]
        self.last = stage == times.stages - 1
        self.shape = shape

    def __call__(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Wait as long as the forward takes; on the last stage return a loss."""
        began = self.clock()
        if not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        result: Tensor = _Timed.apply(inputs, self, began)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True)
class _Delayed:
    """An arrival that an emulated link delivers later."""

    arrival: Arrival
    link: list[float]  # when the link is free again
    wire: float
    latency: float

    def take(self) -> Tensor:
        buffer = self.arrival.take()
        sent = float(buffer.view(-1)[0])
        self.link[0] = max(sent, self.link[0]) + self.wire
        wait_until(self.link[0] + self.latency)
        return buffer


class EmulatedTransport(Transport):
    """A transport whose messages, of fp64, arrive as late as over links with `times`' latency and wire.

    Every directed pair of ranks is one link, which carries one message at a time, in the order of taking.
    """

    def __init__(self, mesh: Mesh, times: StageTimes, *, shape: tuple[int, ...], unclaimed: int) -> None:
        super().__init__(mesh, shape=shape, dtype=torch.float64, unclaimed=unclaimed)
        self._times = times
        self._links: dict[int, list[float]] = {}

    def send(self, tensor: Tensor, *, peer: int, tag: int) -> None:
        """Stamp the message with the time, and send it."""
        tensor = tensor.clone()
        tensor.view(-1)[0] = time.perf_counter()
        super().send(tensor, peer=peer, tag=tag)

    def receive(self, *, peer: int, tag: int) -> Any:
        """Post the receive of one message."""
        arrival = super().receive(peer=peer, tag=tag)
        wire = max(self._times.wire, default=0.0)
        link = self._links.setdefault(peer, [0.0])
        return _Delayed(arrival, link, wire, self._times.latency)


class NoReduction:
    """A reducer for stages without parameters."""

    def last(self, stage: int) -> None:
        """Do nothing."""

    def start(self, stage: int) -> None:
        """Do nothing."""


class EmulatedUpdates:
    """Optimizer steps of an asynchronous schedule that wait."""

    def __init__(self, times: StageTimes) -> None:
        self._seconds = times.update

    def use(self, stage: int, microbatch: int) -> None:
        """Do nothing: waiting stages have no weights."""

    def done(self, stage: int, microbatch: int) -> None:
        """Do nothing."""

    def update(self, stage: int) -> None:
        """Wait as long as the step takes."""
        wait_until(time.perf_counter() + self._seconds[stage])


def barrier(mesh: Mesh) -> None:
    """Wait for all ranks."""
    if mesh.world.group is not None:
        dist.barrier()
