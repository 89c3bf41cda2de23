"""One microbatch through each stage before the first step, so that what libraries keep is allocated first.

The first call of a kernel leaves something behind for good: compiled code, workspaces, handles. Allocated at
the height of the first step, these blocks would lie in the gaps between the activations and hold the heap in
pieces ever after. With gpipe on CPUs that was 1 to 4 % of a rank's memory:

    │act│k│act│k│act│k│act│  →  │   │k│   │k│   │k│   │     without: free space that fits nothing larger
    │k│k│k│act│act│act│act│  →  │k│k│k│               │     with
"""

from __future__ import annotations

import torch

from planner.layout import Layout
from profiles.model import ModelSpec
from runtime.executor import run_backward
from runtime.pipeline import DTYPES, Pipeline


def warm_up(pipeline: Pipeline, model: ModelSpec, layout: Layout) -> None:
    """Send a microbatch of zeros forward and backward through this rank's stages; clear all gradients.

    All tensor-parallel ranks of a stage call this together. Nothing goes to other stages, no weight changes.
    """
    device = pipeline.mesh.device
    tokens = torch.zeros((layout.microbatch, model.seq_len), dtype=torch.long, device=device)
    width = model.seq_len // (layout.tp if layout.sequence_parallel else 1)
    shape = (layout.microbatch, width, model.hidden)
    pipeline.reducer.begin_step()
    for stage in pipeline.stages.values():
        inputs = tokens
        if not stage.first:
            inputs = torch.zeros(shape, dtype=DTYPES[layout.precision], device=device, requires_grad=True)
        output = stage(inputs, tokens if stage.last else None)
        run_backward(output, torch.ones_like(output))
    pipeline.reducer.begin_step()
