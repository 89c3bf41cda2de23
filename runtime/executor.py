"""The executor: walks the action list of one rank, for any schedule and any number of stages.

    for each entry        F        take input → forward → keep the graph's end, hand the output on
    of the lowered        B, I     take gradient → backward → hand the input's gradient on
    schedule              W        weight gradients that I put aside
                          SEND_*   start; never wait           RECV_*  post, together with a few that follow
                          REDUCE   sum the stage's gradients over dp: what its last backward left unsent

What another rank waits for goes first: a message is sent before receives are posted.

A single device is a pipeline of one stage: there is no other path for losses and gradients. The backward of
every microbatch starts from 1 / (valid tokens of the global batch), and gradients are only ever added; that
is the one place of normalisation.

Nothing is kept beyond its last use: an output's data until it is sent (its place in the graph until the
backward), an input until B or W, a received gradient likewise, then the buffer goes back to the transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import Variable

from planner.schedules import Action, Kind, LoweredAction, LoweredSchedule
from runtime.linear import DeferredGradients
from runtime.recorder import Recorder
from runtime.transport import Arrival, Transport

RECEIVES_AHEAD = 4  # posted where the rank is about to wait anyway
BUSY_RECEIVES_AHEAD = 1  # posted where it is not

Cell = tuple[int, int]  # stage, microbatch


class StageModule(Protocol):
    """What the executor needs of a stage; `runtime.models.Stage` is one, an emulated stage another."""

    deferred: DeferredGradients

    def __call__(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the stage's output; on the last stage, given targets, the sum of the token losses."""


class Reducer(Protocol):
    """Sums the gradients of one stage over dp."""

    def last(self, stage: int) -> Callable[[Tensor], None] | None:
        """Note that the coming backward is the last of `stage`.

        Return what to tell of each parameter whose gradient it adds to, if anything.
        """

    def start(self, stage: int) -> None:
        """Start on `stage`, whose gradients are final; must not wait."""


class Updates(Protocol):
    """Weight versions and optimizer steps of an asynchronous schedule."""

    def use(self, stage: int, microbatch: int) -> None:
        """Load the weights with which `microbatch` goes through `stage`."""

    def done(self, stage: int, microbatch: int) -> None:
        """Note that `microbatch` needs no weights of `stage` any more."""

    def update(self, stage: int) -> None:
        """Step the optimizer of `stage`, whose gradients are being summed."""


@dataclass(frozen=True, kw_only=True)
class StepData:
    """One step's input for one pipeline.

    `tokens` and `targets` are [microbatches, microbatch, sequence], read on the first and on the last stage
    only. `valid_tokens` counts the targets of the global batch that are not ignored; where several batches
    are in flight, one count for each microbatch.
    """

    tokens: Tensor | None
    targets: Tensor | None
    valid_tokens: int | Sequence[int]

    def seed(self, microbatch: int) -> float:
        """Return where the backward of `microbatch` starts: 1 / (valid tokens of its global batch)."""
        valid = self.valid_tokens
        return 1.0 / max(1, valid if isinstance(valid, int) else valid[microbatch])


class _Flight:
    """One microbatch inside one stage, from F to B or W."""

    def __init__(self, inputs: Tensor, output: Tensor, buffers: list[Tensor]) -> None:
        self._inputs = inputs
        self._output: Tensor | None = output
        self.buffers = buffers

    def let_go(self, nothing: Tensor) -> None:
        """Drop the output's data, which has been handed on, and keep its place in the graph only."""
        assert self._output is not None
        if self._output._base is None and self._output is not self._inputs:  # a view's data is its base's
            self._output.data = nothing

    def backward(self, gradient: Tensor) -> Tensor | None:
        """Run the backward once, free the graph and return the gradient of the stage's input."""
        assert self._output is not None, "a microbatch has one backward"
        output, self._output = self._output, None
        run_backward(output, gradient)
        return self._inputs.grad


def run_backward(output: Tensor, gradient: Tensor) -> None:
    """Add up the gradients of all leaves below `output` and free its graph.

    The engine is called as `torch.autograd.backward` calls it, but for its check of the gradient's shape
    against an output that is gone: that check costs more than the call, and its first use loads a symbolic
    algebra package, 2 s and 70 MB in every process.
    """
    engine = Variable._execution_engine
    engine.run_backward((output,), (gradient,), False, False, (), True, accumulate_grad=True)


class Executor:
    """Runs the lowered schedule of one pipeline rank on its stages, step after step."""

    def __init__(
        self,
        *,
        stages: Mapping[int, StageModule],
        lowered: LoweredSchedule,
        rank: int,
        transport: Transport | None,
        reducer: Reducer,
        recorder: Recorder,
        updates: Updates | None = None,
    ) -> None:
        self._stages = stages
        self._actions: Sequence[LoweredAction] = lowered.actions[rank]
        self._last = lowered.schedule.stages - 1
        self._placement = lowered.schedule.placement
        self._rank = rank
        self._transport = transport
        self._reducer = reducer
        self._recorder = recorder
        self._updates = updates
        self._receives = [a for a in self._actions if a.kind in (Kind.RECV_F, Kind.RECV_B)]
        self._final = _last_backwards(self._actions)
        self._nothing = torch.empty(0)

    def step(self, data: StepData) -> dict[int, Tensor]:
        """Run all actions once; return the summed token losses by microbatch (empty but on the last stage).

        Gradients are added to the parameters' `grad`: those of the mean loss over the valid tokens of the
        global batch.
        """
        self._begin(data)
        for place, action in enumerate(self._actions):
            self._recorder.begin(action)
            if place in self._final:
                self._run_last(action)
            else:
                self._run(action)
            self._recorder.end()
        if self._transport is not None:
            self._transport.drain()
        assert not self._flights and not self._arrivals, "the schedule left microbatches unfinished"
        return self._losses

    def _begin(self, data: StepData) -> None:
        self._data = data
        self._posted = self._due = 0  # receives started; receives whose place in the list has passed
        self._flights: dict[Cell, _Flight] = {}
        self._arrivals: dict[Action, Arrival] = {}
        self._outgoing: dict[Action, Tensor] = {}  # computed, not yet sent
        self._handed: dict[Action, Tensor] = {}  # between two stages of this rank
        self._losses: dict[int, Tensor] = {}

    def _run_last(self, action: LoweredAction) -> None:
        """Run the last backward of a stage; its gradients are summed over dp while it goes on."""
        deferred = self._stages[action.stage].deferred
        deferred.watcher = self._reducer.last(action.stage)
        self._run(action)
        deferred.watcher = None

    def _run(self, action: LoweredAction) -> None:
        kind, stage, microbatch = action.action
        if self._updates is not None and kind in (Kind.F, Kind.B, Kind.I, Kind.W):
            self._updates.use(stage, microbatch)
        if kind == Kind.F:
            self._forward(stage, microbatch)
        elif kind in (Kind.B, Kind.I):
            self._backward(kind, stage, microbatch)
        elif kind == Kind.W:
            self._stages[stage].deferred.run(microbatch)
            self._finish((stage, microbatch))
        elif kind in (Kind.SEND_F, Kind.SEND_B):
            assert self._transport is not None
            self._post_receives(0)  # a send may wait for older ones; nobody may wait for our receives
            self._transport.send(self._outgoing.pop(action.action), peer=action.peer, tag=action.tag)
            if kind == Kind.SEND_F:
                self._flights[stage, microbatch].let_go(self._nothing)
            self._post_receives(BUSY_RECEIVES_AHEAD)
        elif kind in (Kind.RECV_F, Kind.RECV_B):
            self._due += 1
        elif kind == Kind.REDUCE:
            self._reducer.start(stage)
        else:
            assert self._updates is not None, "only asynchronous schedules update within a step"
            self._updates.update(stage)

    def _post_receives(self, ahead: int) -> None:
        """Post receives up to `ahead` beyond the current place, in the order of the list."""
        until = min(self._due + ahead, len(self._receives))
        for action in self._receives[self._posted : until]:
            assert self._transport is not None
            self._arrivals[action.action] = self._transport.receive(peer=action.peer, tag=action.tag)
        self._posted = max(self._posted, until)

    def _take(self, action: Action, buffers: list[Tensor]) -> Tensor:
        """Return what a RECV names, from another rank or from another stage of this one."""
        handed = self._handed.pop(action, None)
        if handed is not None:
            return handed
        self._post_receives(RECEIVES_AHEAD)
        self._recorder.waits()
        buffer = self._arrivals.pop(action).take()
        self._recorder.waited()
        buffers.append(buffer)
        return buffer

    def _hand_on(self, sends: Action, receives: Action, tensor: Tensor) -> None:
        """Keep `tensor` for its SEND, or for the stage of this rank that takes it."""
        if self._placement[receives.stage] == self._rank:
            self._handed[receives] = tensor
        else:
            self._outgoing[sends] = tensor

    def _forward(self, stage: int, microbatch: int) -> None:
        module, last = self._stages[stage], stage == self._last
        buffers: list[Tensor] = []
        if stage == 0:
            assert self._data.tokens is not None
            inputs = self._data.tokens[microbatch]
        else:
            inputs = self._take(Action(Kind.RECV_F, stage, microbatch), buffers).detach().requires_grad_()
        if last:
            assert self._data.targets is not None
            output = module(inputs, self._data.targets[microbatch])
            self._losses[microbatch] = output.detach()
        else:
            output = module(inputs)
            sends, receives = (
                Action(Kind.SEND_F, stage, microbatch),
                Action(Kind.RECV_F, stage + 1, microbatch),
            )
            self._hand_on(sends, receives, output.detach())
            if self._nothing.dtype != output.dtype or self._nothing.device != output.device:
                self._nothing = output.new_empty(0)
        self._flights[stage, microbatch] = _Flight(inputs, output, buffers)

    def _backward(self, kind: Kind, stage: int, microbatch: int) -> None:
        flight, deferred = self._flights[stage, microbatch], self._stages[stage].deferred
        if stage == self._last:
            gradient = torch.full_like(self._losses[microbatch], self._data.seed(microbatch))
        else:
            gradient = self._take(Action(Kind.RECV_B, stage, microbatch), flight.buffers)
        if kind == Kind.I:
            with deferred.collecting(microbatch):
                passed = flight.backward(gradient)
        else:
            passed = flight.backward(gradient)
        if stage > 0:
            assert passed is not None
            sends, receives = (
                Action(Kind.SEND_B, stage, microbatch),
                Action(Kind.RECV_B, stage - 1, microbatch),
            )
            self._hand_on(sends, receives, passed)
        if kind == Kind.B:
            self._finish((stage, microbatch))

    def _finish(self, cell: Cell) -> None:
        """Give back what the microbatch received: its last backward action is done."""
        if self._updates is not None:
            self._updates.done(*cell)
        for buffer in self._flights.pop(cell).buffers:
            assert self._transport is not None
            self._transport.release(buffer)


def _last_backwards(actions: Sequence[LoweredAction]) -> frozenset[int]:
    """Return the places of the last B or W of a stage before each of its reductions."""
    latest: dict[int, int] = {}
    final = set()
    for place, action in enumerate(actions):
        if action.kind in (Kind.B, Kind.W):
            latest[action.stage] = place
        elif action.kind == Kind.REDUCE and action.stage in latest:
            final.add(latest[action.stage])
    return frozenset(final)
