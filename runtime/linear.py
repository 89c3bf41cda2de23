"""Linear layers whose weight gradient can wait, and the queue in which it waits.

Zero-bubble schedules (Qi et al. 2023, arXiv:2401.10241) split the backward of a layer Y = X·Wᵀ in two:

    I (input gradient)    dX = dY · W      the previous stage waits for it
    W (weight gradient)   dW = dYᵀ · X     nobody waits for it

Walking the autograd graph a second time for W costs more than W itself for small layers. Here the backward
of a layer computes dX and hands dW to `DeferredGradients`, which runs it at once (B = I + W) or keeps it
for later. Weight gradients are added into `parameter.grad` in place and never travel through autograd, so
hooks on parameters do not fire; `DeferredGradients.watcher` hears of every addition instead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Work = Callable[[], None]

_BEFORE_PARAMETERS = 3  # arguments of _Linears ahead of its parameters


class DeferredGradients:
    """Weight gradients of one stage that wait for their W action, by microbatch.

    While `active`, work handed in is kept under the current key; otherwise it runs at once. `watcher`, where
    set, is told of every parameter that a gradient was added to.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._waiting: dict[Hashable, list[Work]] = {}
        self.active = False
        self.watcher: Callable[[Tensor], None] | None = None

    @contextmanager
    def collecting(self, key: Hashable) -> Iterator[None]:
        """Keep all weight gradients of the backwards inside the block under `key`."""
        if self.active:
            raise RuntimeError(f"microbatch {self._key} is still collecting; {key} cannot start")
        self._waiting.setdefault(key, [])
        self._key, self.active = key, True
        try:
            yield
        finally:
            self._key, self.active = None, False

    def add(self, work: Work) -> None:
        """Run `work` now, or keep it when a key is collecting."""
        if self.active:
            self._waiting[self._key].append(work)
        else:
            work()

    def run(self, key: Hashable) -> None:
        """Compute the weight gradients kept under `key` (action W) and let go of their tensors.

        Raises:
            KeyError: when nothing was ever collected under `key`.
        """
        waiting = self._waiting.pop(key)
        waiting.reverse()
        with torch.no_grad():
            while waiting:
                waiting.pop()()

    def added(self, parameter: Tensor) -> None:
        """Note that a gradient was added to `parameter.grad`."""
        if self.watcher is not None:
            self.watcher(parameter)

    def accumulate(self, parameter: Tensor, gradient: Tensor) -> None:
        """Add `gradient` to `parameter.grad`."""
        if parameter.grad is None:
            parameter.grad = gradient.to(gradient_dtype(parameter))
        else:
            parameter.grad.add_(gradient)
        self.added(parameter)

    def accumulate_product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Add leftᵀ · right, both [tokens, ·], to `parameter.grad`; without a temporary if dtypes agree."""
        if parameter.grad is not None and parameter.grad.dtype == left.dtype:
            parameter.grad.addmm_(left.t(), right)
            self.added(parameter)
        else:
            self.accumulate(parameter, left.t() @ right)

    @property
    def pending(self) -> tuple[Hashable, ...]:
        """Keys whose weight gradients have not been computed."""
        return tuple(self._waiting)


class DeferringModule(nn.Module):
    """A module whose own parameters' gradients go through `deferred`."""

    def __init__(self) -> None:
        super().__init__()
        self.deferred = DeferredGradients()


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Call `function.apply`, which torch leaves untyped, for functions with one result."""
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


def gradient_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype in which gradients of `parameter` are added up: fp32 for parameters below it."""
    return torch.promote_types(parameter.dtype, torch.float32)


def zero_gradient(parameter: Tensor) -> Tensor:
    """Return `parameter.grad`, made of zeros if there is none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, dtype=gradient_dtype(parameter))
    return parameter.grad


class Entrance(Protocol):
    """The start of a tensor-parallel region: how a linear's input comes from what this rank keeps of it."""

    def whole(self, kept: Tensor) -> Tensor:
        """Return the input for what is kept."""

    def start_whole(self, kept: Tensor) -> Callable[[], Tensor]:
        """Start making the input again; the result waits for it."""

    def start_reduce(self, gradient: Tensor) -> Callable[[], Tensor]:
        """Start turning our gradient of the input into that of what is kept; the result waits for it."""


class _Linears(torch.autograd.Function):
    """Several linears of one input: its gradient is added up in one tensor, without passes of autograd.

    Parameters come as weight, bias, weight, bias, …; a bias may be None. In a whole backward the messages of
    the entrance travel while the products are computed:

        remake the input ─────────┐            (sequence parallel only)
        dX ──► reduce ────────────┼────────┐
                 (nothing waits)  ▼ dW     ▼ done
    """

    @staticmethod
    def forward(
        ctx: Any,
        kept: Tensor,
        deferred: DeferredGradients,
        enter: Entrance | None,
        *parameters: Tensor | None,
    ) -> Tensor | tuple[Tensor, ...]:
        weights = parameters[::2]
        ctx.save_for_backward(kept, *weights)  # autograd then notices a weight changed too early
        ctx.deferred, ctx.enter, ctx.parameters = deferred, enter, parameters
        inputs = kept if enter is None else enter.whole(kept)
        results = tuple(map(partial(functional.linear, inputs), weights, parameters[1::2]))
        return results if len(results) > 1 else results[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept, *weights = ctx.saved_tensors
        enter, wanted = ctx.enter, ctx.needs_input_grad
        learns = any(wanted[_BEFORE_PARAMETERS:])
        remade = None
        if enter is not None and learns and not ctx.deferred.active:
            remade = enter.start_whole(kept)
        rows = [gradient.flatten(0, -2) for gradient in gradients]
        result = None
        if wanted[0]:
            result = rows[0] @ weights[0]
            for more, weight in zip(rows[1:], weights[1:], strict=True):
                result.addmm_(more, weight)
            result = result.view(*gradients[0].shape[:-1], -1)
        reduced = enter.start_reduce(result) if enter is not None and result is not None else None
        if learns:
            work = partial(
                _add_gradients, kept, remade, rows, _learning(ctx), enter=enter, deferred=ctx.deferred
            )
            ctx.deferred.add(work)
        if reduced is not None:
            result = reduced()
        return result, None, None, *(None for _ in ctx.parameters)


def _learning(ctx: Any) -> list[Tensor | None]:
    """Return the parameters of a `_Linears`, None in place of the missing and the frozen."""
    wanted = ctx.needs_input_grad[_BEFORE_PARAMETERS:]
    return [p if needed else None for p, needed in zip(ctx.parameters, wanted, strict=True)]


def _add_gradients(
    kept: Tensor,
    remade: Callable[[], Tensor] | None,
    rows: list[Tensor],
    parameters: list[Tensor | None],
    *,
    enter: Entrance | None,
    deferred: DeferredGradients,
) -> None:
    if enter is not None:
        kept = (remade or enter.start_whole(kept))()
    flat = kept.flatten(0, -2)
    for row, weight, bias in zip(rows, parameters[::2], parameters[1::2], strict=True):
        if weight is not None:
            deferred.accumulate_product(weight, row, flat)
        if bias is not None:
            deferred.accumulate(bias, row.sum(0))


class Linear(DeferringModule):
    """Y = X·Wᵀ + b on [..., inputs] → [..., outputs], with a weight gradient that can be deferred."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the layer."""
        return linear(inputs, self.weight, self.bias, self.deferred)


def linear(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    deferred: DeferredGradients,
    *,
    enter: Entrance | None = None,
) -> Tensor:
    """Apply Y = X·Wᵀ + b whose weight and bias gradients go through `deferred`."""
    return apply(_Linears, inputs, deferred, enter, weight, bias)


def linears(inputs: Tensor, *layers: Linear, enter: Entrance | None = None) -> tuple[Tensor, ...]:
    """Apply one or more layers of one stage to the same input."""
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    results = _Linears.apply(inputs, layers[0].deferred, enter, *parameters)  # type: ignore[no-untyped-call]
    return results if isinstance(results, tuple) else (results,)


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, bias: Tensor, deferred: DeferredGradients) -> Tensor:
        ctx.bias, ctx.deferred = bias, deferred
        return inputs + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        bias, deferred = ctx.bias, ctx.deferred
        if ctx.needs_input_grad[1]:
            deferred.add(
                lambda: deferred.accumulate(bias, gradient.sum(tuple(range(gradient.dim() - bias.dim()))))
            )
        return gradient, None, None


def add_bias(inputs: Tensor, bias: Tensor, deferred: DeferredGradients) -> Tensor:
    """Add `bias` over the last dimensions of `inputs`; its gradient goes through `deferred`."""
    return apply(_AddBias, inputs, bias, deferred)
