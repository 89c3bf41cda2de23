"""The executor against one process: losses and gradients of every factorisation, in fp64."""

from __future__ import annotations

import itertools

import pytest
import torch

from planner.layout import Layout
from profiles.model import ModelSpec
from runtime.executor import StepData
from runtime.mesh import build_mesh, local_device
from runtime.models import build_stage
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel


def model(**changes):
    fields = {"layers": 4, "hidden": 8, "heads": 2, "vocab": 13, "seq_len": 6} | changes
    return ModelSpec(**fields)


def global_batch(spec, sequences, seed=0):
    """Tokens and targets [sequences, seq], every sequence with another number of valid targets."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(spec.vocab, (sequences, spec.seq_len), generator=generator)
    targets = torch.randint(spec.vocab, (sequences, spec.seq_len), generator=generator)
    for i in range(sequences):
        targets[i, : i % spec.seq_len] = -100
    return tokens, targets


def reference(spec, sequences):
    """Loss and gradients of one process that runs the whole batch at once."""
    tokens, targets = global_batch(spec, sequences)
    stage = build_stage(
        spec,
        layers=range(spec.layers),
        first=True,
        last=True,
        tp=TensorParallel(),
        seed=1,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )
    loss = stage(tokens, targets) / (targets != -100).sum()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in stage.named_parameters()}


def step_data(spec, layout, mesh):
    tokens, targets = global_batch(spec, layout.global_batch)
    valid = int((targets != -100).sum())
    shape = (layout.dp, layout.microbatches, layout.microbatch, spec.seq_len)
    return StepData(
        tokens=tokens.view(shape)[mesh.dp.rank], targets=targets.view(shape)[mesh.dp.rank], valid_tokens=valid
    )


def run_step(spec, layout):
    lowered = lowered_schedule(layout)
    mesh = build_mesh(
        layout, placement=lowered.schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    pipeline = build_pipeline(spec, layout, mesh=mesh, lowered=lowered, seed=1, recorder=Recorder())
    data = step_data(spec, layout, mesh)
    losses = pipeline.gradients(data)
    loss = sum(value.item() for value in losses.values()) / data.valid_tokens
    gradients = {name: (p.grad.numpy(), shard.dim) for name, p, shard in pipeline.parameters()}
    return mesh.coordinates, loss if losses else None, gradients


def compare(results, spec, layout):
    """Compare every rank's loss and gradients with one process; return the worst difference."""
    loss, expected = reference(spec, layout.global_batch)
    worst = abs(sum(found for place, found, _ in results if found is not None and place.tp == 0) - loss)
    seen = set()
    for place, _, gradients in results:
        for name, (local, dim) in gradients.items():
            full = expected[name]
            if dim is not None:
                part = TensorParallel(rank=place.tp, size=layout.tp).slice(full.shape[dim])
                full = full.narrow(dim, part.start, len(part))
            assert full.shape == local.shape
            worst = max(worst, float((full - torch.from_numpy(local)).abs().max()))
            seen.add(name)
    assert seen == set(expected)
    return worst


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize(("tp", "pp", "dp"), [(2, 1, 2), (2, 2, 2), (2, 4, 1)])
@pytest.mark.parametrize("tied", [True, False])
def test_sequence_parallel_and_recompute_change_nothing(run_ranks, recompute, tp, pp, dp, tied):
    spec = model(tied_embeddings=tied)
    layout = Layout(
        tp=tp,
        pp=pp,
        dp=dp,
        global_batch=4 * dp,
        precision="fp64",
        sequence_parallel=True,
        recompute=recompute,
    )
    results = run_ranks(layout.world_size, run_step, spec, layout)
    assert compare(results, spec, layout) <= 1e-12
