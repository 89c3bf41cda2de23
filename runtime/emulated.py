"""Stages that wait instead of computing, and messages that an emulated interconnect delays.

A stage's forward and backward go through autograd like those of a model, so that the executor does all of its
work: only the arithmetic is replaced, by waiting as long as it would take. A message carries the time it left
its device; the receiver takes it when an interconnect of the given speed would have delivered it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from planner.schedules import StageTimes
from runtime.linear import DeferredGradients
from runtime.mesh import Mesh
from runtime.transport import Arrival, Transport

LEAD_SECONDS = 5e-3  # how far ahead of its device a host may have launched
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


class EmulatedDevice:
    """Begins a cell when the host calls for it: whatever the host does between cells is lost."""

    def begin(self) -> float:
        """Return when the running cell begins, by `time.perf_counter`."""
        return time.perf_counter()

    def run_until(self, moment: float) -> None:
        """Be busy until `moment`."""
        wait_until(moment)


class EmulatedAccelerator(EmulatedDevice):
    """Has a queue, as accelerators do: the host launches receive, cell and send while earlier cells run.

        host      │ launch 1 │ launch 2 │ …              what the host does is hidden, up to LEAD_SECONDS;
        device        │▒▒▒▒ 1 ▒▒▒▒│▒▒▒▒ 2 ▒▒▒▒│          a host that is later delays its device

    A cell begins when the one before has ended and its message is there, whether or not the host, one of
    many on these cores, has woken up by then. It ends in real time.
    """

    def __init__(self) -> None:
        self._free = self._arrived = self._began = 0.0
        self.busy_seconds = 0.0  # of the running step
        self.first_began: float | None = None

    def start(self) -> None:
        """Begin a step, now."""
        self._free, self._arrived = time.perf_counter(), 0.0
        self.busy_seconds, self.first_began = 0.0, None

    def arrived(self, moment: float) -> None:
        """Note when the message for the next cell has come."""
        self._arrived = moment

    def begin(self) -> float:
        """Return when the running cell begins, by `time.perf_counter`."""
        self._began = max(self._free, self._arrived, time.perf_counter() - LEAD_SECONDS)
        self._arrived = 0.0
        if self.first_began is None:
            self.first_began = self._began
        return self._began

    def run_until(self, moment: float) -> None:
        """Be busy until `moment`."""
        wait_until(moment)
        self._free = moment
        self.busy_seconds += moment - self._began

    def sends(self) -> float:
        """Return when a message that is sent now leaves: when its cell has ended."""
        return max(self._free, time.perf_counter() - LEAD_SECONDS)


class _Timed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, stage: EmulatedStage, began: float) -> Tensor:
        ctx.stage = stage
        result = inputs.new_zeros(()) if stage.last else inputs + 0.0
        stage.device.run_until(began + stage.forward_seconds)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        stage = ctx.stage
        device = stage.device
        began, result = device.begin(), gradient.expand(stage.shape).clone()
        if stage.deferred.active:
            stage.deferred.add(lambda: device.run_until(device.begin() + stage.weight_seconds))
            device.run_until(began + stage.input_seconds)
        else:
            device.run_until(began + stage.backward_seconds)
        return result, None, None


class EmulatedStage:
    """One stage of a pipeline that takes `times` and computes nothing.

    All stages of a rank share its `device`.
    """

    def __init__(
        self,
        times: StageTimes,
        stage: int,
        shape: tuple[int, ...],
        device: EmulatedDevice,
    ) -> None:
        self.device = device
        self.deferred = DeferredGradients()
        self.forward_seconds = times.forward[stage]
        self.backward_seconds = times.backward[stage]
        self.input_seconds = times.input_gradient[stage]
        self.weight_seconds = times.weight_gradient[stage]
        self.last = stage == times.stages - 1
        self.shape = shape

    def __call__(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Wait as long as the forward takes; on the last stage return a loss."""
        began = self.device.begin()
        if not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        result: Tensor = _Timed.apply(inputs, self, began)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True)
class _Delayed:
    """An arrival that an emulated link delivers later."""

    arrival: Arrival
    device: EmulatedAccelerator
    link: list[float]  # when the link is free again
    wire: float
    latency: float

    def take(self) -> Tensor:
        buffer = self.arrival.take()
        sent = float(buffer.view(-1)[0])
        self.link[0] = max(sent, self.link[0]) + self.wire
        wait_until(self.link[0] + self.latency)
        self.device.arrived(self.link[0] + self.latency)
        return buffer


class EmulatedTransport(Transport):
    """A transport whose messages, of fp64, arrive as late as over links with `times`' latency and wire.

    Every directed pair of ranks is one link, which carries one message at a time, in the order of taking. A
    message carries the time at which it left its device.
    """

    def __init__(
        self,
        mesh: Mesh,
        times: StageTimes,
        device: EmulatedAccelerator,
        *,
        shape: tuple[int, ...],
        unclaimed: int,
    ) -> None:
        super().__init__(mesh, shape=shape, dtype=torch.float64, unclaimed=unclaimed)
        self._times = times
        self._device = device
        self._links: dict[int, list[float]] = {}

    def send(self, tensor: Tensor, *, peer: int, tag: int) -> None:
        """Stamp the message with the time, and send it."""
        tensor = tensor.clone()
        tensor.view(-1)[0] = self._device.sends()
        super().send(tensor, peer=peer, tag=tag)

    def receive(self, *, peer: int, tag: int) -> Any:
        """Post the receive of one message."""
        arrival = super().receive(peer=peer, tag=tag)
        wire = max(self._times.wire, default=0.0)
        link = self._links.setdefault(peer, [0.0])
        return _Delayed(arrival, self._device, link, wire, self._times.latency)


class NoReduction:
    """A reducer for stages without parameters."""

    def last(self, stage: int) -> None:
        """Do nothing."""

    def start(self, stage: int) -> None:
        """Do nothing."""


class EmulatedUpdates:
    """Optimizer steps of an asynchronous schedule that wait."""

    def __init__(self, times: StageTimes, device: EmulatedDevice) -> None:
        self._seconds = times.update
        self._device = device

    def use(self, stage: int, microbatch: int) -> None:
        """Do nothing: waiting stages have no weights."""

    def done(self, stage: int, microbatch: int) -> None:
        """Do nothing."""

    def update(self, stage: int) -> None:
        """Wait as long as the step takes."""
        self._device.run_until(self._device.begin() + self._seconds[stage])


def barrier(mesh: Mesh) -> None:
    """Wait for all ranks."""
    if mesh.world.group is not None:
        dist.barrier()
