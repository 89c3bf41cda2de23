"""Weight stashing: a microbatch goes backward through the weights it went forward through.

Asynchronous schedules update a stage's weights while microbatches are in flight (Narayanan et al. 2019, SOSP;
2021, arXiv:2006.09503). Version n of a stage has seen n updates. Before every action of a microbatch its
version is put in place; an update always starts from the newest:

    version 0   F0  F1  ·   B0  ·   B1          kept until B1, the last to use it
    version 1               U → F2  ·   ·  B2   W(1) = W(0) − ν ∇f₀(W(0))
    version 2                       U → F3      W(2) = W(1) − ν ∇f₁(W(0)): the gradient is one version old

The optimizer steps twins of the parameters. The parameters are only pointed at other memory, so autograd,
which would refuse a graph whose weights changed in place, finds them as they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from planner.job import OptimizerSpec
from planner.schedules import Schedule, forward_versions
from runtime.data_parallel import GradientReducer
from runtime.optimizer import Optimizer


class StageVersions:
    """The versions of one stage's weights. `versions[microbatch]` is the one that a microbatch uses."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], versions: Sequence[int], spec: OptimizerSpec
    ) -> None:
        self._parameters = dict(parameters)
        self._twins = {name: nn.Parameter(p.detach()) for name, p in parameters.items()}
        self._versions = versions
        self._left = Counter(versions)  # version → microbatches whose backward is still to come
        self._kept: dict[int, list[Tensor]] = {}  # older versions
        self._loaded = 0
        self.newest = 0
        self.optimizer = Optimizer(spec, self._twins)

    @property
    def alive(self) -> int:
        """Versions that are kept now."""
        return 1 + len(self._kept)

    def use(self, microbatch: int) -> None:
        """Put the version of `microbatch` in place."""
        self._load(self._versions[microbatch])

    def done(self, microbatch: int) -> None:
        """Drop the version of `microbatch` if nothing else will use it."""
        version = self._versions[microbatch]
        self._left[version] -= 1
        if not self._left[version] and version != self.newest:
            self._load(self.newest)
            del self._kept[version]

    def update(self, learning_rate: float) -> None:
        """Step the newest version with the parameters' gradients."""
        self._load(self.newest)
        if self._left[self.newest]:
            self._kept[self.newest] = [twin.data for twin in self._twins.values()]
            for twin in self._twins.values():
                twin.data = twin.data.clone()
        for name, twin in self._twins.items():
            twin.grad = self._parameters[name].grad
        self.optimizer.step(learning_rate)
        for twin in self._twins.values():
            twin.grad = None
        self.newest += 1
        self._load(self.newest)

    @torch.no_grad()
    def _load(self, version: int) -> None:
        if version == self._loaded:
            return
        tensors = self._kept[version] if version != self.newest else [t.data for t in self._twins.values()]
        for parameter, tensor in zip(self._parameters.values(), tensors, strict=True):
            parameter.data = tensor
        self._loaded = version


class AsynchronousUpdates:
    """Weight versions and optimizer steps of all stages of a rank, for the executor.

    `learning_rate(n)` is that of a stage's update n, from 0. `alive` is the most versions a stage ever kept.
    """

    def __init__(
        self,
        stages: Mapping[int, nn.Module],
        *,
        schedule: Schedule,
        reducer: GradientReducer,
        spec: OptimizerSpec,
        learning_rate: Callable[[int], float],
    ) -> None:
        versions = forward_versions(schedule)
        self._stages = {
            stage: StageVersions(dict(module.named_parameters()), versions[stage], spec)
            for stage, module in stages.items()
        }
        self._reducer = reducer
        self._learning_rate = learning_rate
        self.alive = 1

    def use(self, stage: int, microbatch: int) -> None:
        """Load the weights with which `microbatch` goes through `stage`."""
        self._stages[stage].use(microbatch)

    def done(self, stage: int, microbatch: int) -> None:
        """Note that `microbatch` needs no weights of `stage` any more."""
        self._stages[stage].done(microbatch)

    def update(self, stage: int) -> None:
        """Wait for the stage's gradients, step its newest weights, and clear its gradients."""
        versions = self._stages[stage]
        self._reducer.finish_stage(stage)
        versions.update(self._learning_rate(versions.newest))
        self._reducer.clear(stage)
        self.alive = max(self.alive, versions.alive)
