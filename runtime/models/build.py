"""Building a stage: the only way one comes into being."""

from __future__ import annotations

import torch

from planner.layout import Layout, Recompute, check_layout
from profiles.model import ModelSpec
from runtime.initialize import initialize
from runtime.models.parallelize import parallelize
from runtime.models.rotary import Rotary
from runtime.models.stage import Stage
from runtime.tensor_parallel import TensorParallel


def build_stage(
    spec: ModelSpec,
    *,
    layers: range,
    first: bool,
    last: bool,
    tp: TensorParallel,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    recompute: Recompute = "none",
    sequence_parallel: bool = False,
) -> Stage:
    """Return the stage that holds `layers` of `spec`, with our tensor-parallel share of its initial weights.

    Shapes are laid out on the meta device; only our own parameters are ever materialised.

    Raises:
        FieldError: at the field of the layout that the model cannot be split by.
    """
    check_layout(Layout(tp=tp.size, global_batch=1, sequence_parallel=sequence_parallel), spec)
    with torch.device("meta"):
        stage = Stage(spec, layers=layers, first=first, last=last, recompute=recompute)
        parallelize(stage, tp, sequence_parallel=sequence_parallel)
    initialize(stage, spec, stage.shard_specs, tp, seed=seed, dtype=dtype, device=device)
    stage.share_deferred()
    if spec.position == "rope":
        stage.rotary = Rotary(
            seq_len=spec.seq_len, head_dim=spec.head_dim, theta=spec.rope_theta, dtype=dtype, device=device
        )
    return stage
