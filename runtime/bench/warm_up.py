"""Do a little of everything once, before ranks are forked.

torch imports several hundred modules the first time that a custom autograd function, a dispatch mode or an
optimizer is used. Done here they are imported once, not by every rank while it is measured.
"""

from __future__ import annotations

import gc

import torch
from torch import nn

from planner.job import OptimizerSpec
from runtime.bench.storage import LiveStorages
from runtime.linear import Linear
from runtime.optimizer import Optimizer, clip_by_global_norm


def warm_up() -> None:
    """Run a linear layer forward and backward, count its bytes and step its optimizer, on one thread."""
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    layer = Linear(4, 4, bias=True)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    with LiveStorages():
        layer(torch.zeros(2, 4, requires_grad=True)).sum().backward()
    named = dict(layer.named_parameters())
    clip_by_global_norm(named, counted=named.keys(), groups=(), max_norm=1.0)
    Optimizer(OptimizerSpec(), named).step(1e-3)
    gc.collect()
    gc.freeze()
