"""Initial weights: one random stream per parameter, so any layout starts from the same model.

Each parameter is generated whole, on the CPU in fp32, from (seed, global name), then sliced and cast. Only
one whole parameter exists at a time; layers of other ranks are never made.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from profiles.errors import DependencyError
from profiles.model import ModelSpec
from runtime.linear import gradient_dtype
from runtime.tensor_parallel import ShardSpec, TensorParallel

STANDARD_DEVIATION = 0.02


def initialize(
    module: nn.Module,
    spec: ModelSpec,
    shards: Mapping[str, ShardSpec],
    tp: TensorParallel,
    *,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Replace the parameters of `module`, on the meta device, by our shares of their initial values.

    Raises:
        DependencyError: when this torch cannot keep fp32 gradients of weights of lower precision.
    """
    for prefix, owner in module.named_modules():
        for leaf, _ in list(owner.named_parameters(recurse=False)):
            name = f"{prefix}.{leaf}"
            full = initial_parameter(spec, name, shards[name].shape, seed=seed)
            local = shards[name].local(full, tp).to(device=device, dtype=dtype, copy=True)
            setattr(owner, leaf, _parameter(local.contiguous()))


def _parameter(values: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(values)
    if gradient_dtype(parameter) != parameter.dtype:
        if not hasattr(parameter, "grad_dtype"):
            raise DependencyError(f"{values.dtype} weights need torch 2.10 or newer, not {torch.__version__}")
        parameter.grad_dtype = gradient_dtype(parameter)
    return parameter


def initial_parameter(spec: ModelSpec, name: str, shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Return the whole initial parameter `name` in fp32.

    Norm weights are one, biases zero, everything else is normal with deviation 0.02, divided by
    √(2 · layers) for the projections back into the residual stream (Radford et al. 2019).
    """
    layer, leaf = name.rsplit(".", 2)[-2:]
    if leaf == "bias":
        return torch.zeros(shape)
    if layer.endswith("norm"):
        return torch.ones(shape)
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    residual = name.startswith("blocks.") and layer in {"output", "down"}
    deviation = STANDARD_DEVIATION / (math.sqrt(2 * spec.layers) if residual else 1.0)
    return torch.randn(shape, generator=generator).mul_(deviation)
