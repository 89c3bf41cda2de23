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
from math import sqrt

import torch
import torch.distributed as dist
from torch import Tensor, nn

from planner.job import OptimizerSpec
from planner.schedules import Schedule, forward_versions
from runtime.data_parallel import GradientReducer
from runtime.linear import gradient_dtype
from runtime.models import Stage
from runtime.optimizer import Optimizer, clip_to_norm, counted_once, squared_norm
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel, sum_partial_gradients


class StageVersions:
    """The versions of one stage's weights; `begin` says which one each microbatch uses."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        self.parameters = dict(parameters)
        # A tensor from `detach` would share the parameter's count of changes: stepping a twin would then look
        # to autograd like a change of weights that microbatches in flight still need.
        self._twins = {name: nn.Parameter(p.data) for name, p in parameters.items()}
        for twin in self._twins.values():
            if gradient_dtype(twin) != twin.dtype:
                twin.grad_dtype = gradient_dtype(twin)
        self._versions: Sequence[int] = ()
        self._left: Counter[int] = Counter()  # version → microbatches whose backward is still to come
        self._kept: dict[int, list[Tensor]] = {}  # older versions
        self._loaded = 0
        self.newest = 0
        self.optimizer = Optimizer(spec, self._twins)

    def begin(self, versions: Sequence[int]) -> None:
        """Count versions from the newest, which becomes 0; `versions[microbatch]` is the one it will use."""
        assert not self._kept, "microbatches are still in flight"
        self._load(self.newest)
        self._versions, self._left = versions, Counter(versions)
        self._loaded = self.newest = 0

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
            twin.grad = self.parameters[name].grad
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
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.data = tensor
        self._loaded = version


class AsynchronousUpdates:
    """Weight versions and optimizer steps of all stages of a rank, for the executor.

    A stage is updated while others are not, so there is no norm of the whole gradient to clip by: each stage
    is clipped to `max_norm` / √stages, which keeps the norm of all of them within `max_norm`.
    """

    def __init__(
        self,
        stages: Mapping[int, Stage],
        *,
        reducer: GradientReducer,
        spec: OptimizerSpec,
        tp: TensorParallel | None = None,
        whole: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """`whole` is the number of stages of the model; `stages` are those of this rank."""
        self._tp = tp or TensorParallel()
        self._modules = dict(stages)
        self._stages = {
            stage: StageVersions(dict(module.named_parameters()), spec) for stage, module in stages.items()
        }
        self._counted = {stage: counted_once([module], self._tp) for stage, module in stages.items()}
        self._reducer = reducer
        self._recorder = recorder or Recorder()
        self._max_norm = spec.clip_norm / sqrt(whole or len(stages)) if spec.clip_norm else None
        self._rate: Callable[[int], float] = lambda _: 0.0
        self.optimizer = StageOptimizers([versions.optimizer for versions in self._stages.values()])
        self.alive = 1  # the most versions that a stage ever kept
        self.norms: list[dict[int, Tensor]] = []  # since `begin`: by update, the norm of each stage

    def begin(self, schedule: Schedule, learning_rate: Callable[[int], float]) -> None:
        """Start on `schedule` with nothing in flight; `learning_rate(n)` is that of update n, from 0."""
        versions = forward_versions(schedule)
        for stage, own in self._stages.items():
            own.begin(versions[stage])
        self._rate = learning_rate
        self.norms = []

    def use(self, stage: int, microbatch: int) -> None:
        """Load the weights with which `microbatch` goes through `stage`."""
        self._stages[stage].use(microbatch)

    def done(self, stage: int, microbatch: int) -> None:
        """Note that `microbatch` needs no weights of `stage` any more."""
        self._stages[stage].done(microbatch)

    def update(self, stage: int) -> None:
        """Wait for the stage's gradients, step its newest weights, and clear its gradients."""
        versions, module = self._stages[stage], self._modules[stage]
        self._recorder.waits()
        self._reducer.finish_stage(stage)
        sum_partial_gradients(versions.parameters, module.shards(), self._tp)
        self._recorder.waited()
        square = squared_norm(versions.parameters, counted=self._counted[stage])
        if self._tp.group is not None:
            dist.all_reduce(square, group=self._tp.group)
        norm = clip_to_norm(versions.parameters, square=square, max_norm=self._max_norm)
        if versions.newest == len(self.norms):
            self.norms.append({})
        self.norms[versions.newest][stage] = norm
        versions.update(self._rate(versions.newest))
        self._reducer.clear(stage)
        self.alive = max(self.alive, versions.alive)


class StageOptimizers:
    """The optimizers of a rank's stages as one, for checkpoints: names are global, all took as many steps."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live state; see `Optimizer.state_dict`."""
        state: dict[str, Tensor] = {}
        for optimizer in self._optimizers:
            state |= optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of the same names and shapes.

        Raises:
            ValueError: when a name is missing, unknown or of another shape.
        """
        known: set[str] = set()
        for optimizer in self._optimizers:
            names = optimizer.state_dict().keys()
            known |= names
            optimizer.load_state_dict({name: state[name] for name in names if name in state})
        if state.keys() != known:
            raise ValueError(f"optimizer state differs in {sorted(state.keys() ^ known)[:3]}")
