"""AdamW and SGD over named parameters, and clipping by a global norm that counts everything once.

Parameters and their state go by global names, so a checkpoint does not depend on the layout it was made in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from planner.job import OptimizerSpec
from runtime.linear import gradient_dtype
from runtime.models import Stage
from runtime.tensor_parallel import TensorParallel

_MOMENTS = {"exp_avg": "first_moment", "exp_avg_sq": "second_moment"}


class SavedOptimizer(Protocol):
    """What a checkpoint needs of an optimizer."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live state by global names."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of the same names and shapes."""


class Optimizer:
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019), or plain SGD.

    Matrices decay; norm weights and biases (everything of one dimension) do not. Parameters below fp32 have
    an fp32 copy that is updated in their place, and take its rounded values.
    """

    def __init__(self, spec: OptimizerSpec, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.steps = 0
        self._masters = {
            name: parameter.detach().to(gradient_dtype(parameter)).requires_grad_()
            for name, parameter in self.parameters.items()
            if gradient_dtype(parameter) != parameter.dtype
        }
        self._updated: dict[str, Tensor] = {**self.parameters, **self._masters}
        matrices = [parameter for parameter in self._updated.values() if parameter.dim() > 1]
        vectors = [parameter for parameter in self._updated.values() if parameter.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": spec.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._inner: torch.optim.Optimizer
        if spec.name == "sgd":
            self._inner = torch.optim.SGD(groups, lr=spec.learning_rate, fused=True)
            return
        betas = (spec.beta1, spec.beta2)
        self._inner = torch.optim.AdamW(
            groups, lr=spec.learning_rate, betas=betas, eps=spec.epsilon, fused=True
        )
        for parameter in self._updated.values():
            self._inner.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{key: torch.zeros_like(parameter) for key in _MOMENTS},
            }

    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient."""
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        for name, master in self._masters.items():
            master.grad = self.parameters[name].grad
        self._inner.step()
        self._round()
        self.steps += 1

    @torch.no_grad()
    def _round(self) -> None:
        for name, master in self._masters.items():
            master.grad = None
            self.parameters[name].copy_(master)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live state: `first_moment.NAME`, `second_moment.NAME`, `master.NAME` and `steps`.

        All but `steps` are shaped like NAME and are the optimizer's own tensors, so that a checkpoint may be
        loaded into them in place.
        """
        state = {"steps": torch.tensor(self.steps)}
        state |= {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, parameter in self._updated.items():
            own = self._inner.state.get(parameter, {})
            state |= {f"{title}.{name}": own[key] for key, title in _MOMENTS.items() if key in own}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of the same names and shapes.

        Raises:
            ValueError: when a name is missing, unknown or of another shape.
        """
        ours = self.state_dict()
        if ours.keys() != state.keys():
            raise ValueError(f"optimizer state differs in {sorted(ours.keys() ^ state.keys())[:3]}")
        for name, tensor in state.items():
            if tensor.shape != ours[name].shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(ours[name].shape)}")
            ours[name].copy_(tensor)
        self.steps = int(ours["steps"])
        for own in self._inner.state.values():
            if "step" in own:
                own["step"].fill_(self.steps)
        self._round()


def counted_once(stages: Iterable[Stage], tp: TensorParallel) -> frozenset[str]:
    """Return the names of the parameters that this rank adds to the global norm.

    What every tensor-parallel rank holds in full is counted by the first one; a tied embedding by the first
    pipeline stage.
    """
    names: set[str] = set()
    for stage in stages:
        copy = stage.tied_weight() is not None and not stage.first
        for name, shard in stage.shards().items():
            if (shard.dim is not None or tp.rank == 0) and not (copy and name.startswith("embedding.")):
                names.add(name)
    return frozenset(names)


def clip_by_global_norm(
    parameters: Mapping[str, nn.Parameter],
    *,
    counted: Collection[str],
    groups: Sequence[dist.ProcessGroup],
    max_norm: float | None,
) -> float:
    """Scale all gradients so that their global L2 norm is at most `max_norm`; return the norm before.

    Args:
        parameters: this rank's, by global name, their gradients already summed over dp and ties.
        counted: names that this rank adds to the norm; see `counted_once`.
        groups: groups along which the parameters are spread (tp and pp, or one that joins both).
        max_norm: no clipping when None.
    """
    square = squared_norm(parameters, counted=counted)
    for group in groups:
        dist.all_reduce(square, group=group)
    return clip_to_norm(parameters, square=square, max_norm=max_norm).item()


def squared_norm(parameters: Mapping[str, nn.Parameter], *, counted: Collection[str]) -> Tensor:
    """Return what this rank adds to the square of the global norm (fp64, on the parameters' device)."""
    gradients = [p.grad for name, p in parameters.items() if name in counted and p.grad is not None]
    device = next((p.device for p in parameters.values()), torch.device("cpu"))
    return get_total_norm(gradients).to(device, torch.float64).square()


@torch.no_grad()
def clip_to_norm(parameters: Mapping[str, nn.Parameter], *, square: Tensor, max_norm: float | None) -> Tensor:
    """Scale gradients whose global norm has the given `square`; return the norm, without waiting for the
    device.
    """
    norm = square.sqrt()
    if max_norm is not None:
        clip_grads_with_norm_(list(parameters.values()), max_norm, norm)
    return norm
