"""The warm-up calls what the first step will call, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planner.layout import Layout
from profiles.model import ModelSpec
from runtime.executor import StepData
from runtime.mesh import build_mesh, local_device
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges
from runtime.recorder import Recorder
from runtime.warm_up import warm_up

MODEL = ModelSpec(layers=4, hidden=8, heads=2, vocab=13, seq_len=6, tied_embeddings=False)


class Kernels(TorchDispatchMode):
    """Collects every operator called, with the shapes of its tensors."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        result = operator(*arguments, **(keywords or {}))
        shapes = [tuple(a.shape) for a in arguments if isinstance(a, torch.Tensor)]
        self.called.add((operator.name(), tuple(shapes)))
        return result


def start(layout):
    lowered = lowered_schedule(layout)
    mesh = build_mesh(
        layout, placement=lowered.schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    return build_pipeline(MODEL, layout, mesh=mesh, lowered=lowered, seed=1, recorder=Recorder())


def one_step(pipeline, layout):
    tokens = torch.randint(13, (layout.microbatches, layout.microbatch, 6), generator=torch.manual_seed(1))
    losses = pipeline.gradients(StepData(tokens=tokens, targets=tokens, valid_tokens=tokens.numel()))
    return losses, {name: parameter.grad.clone() for name, parameter, _ in pipeline.parameters()}


def compare(layout):
    cold, warm = start(layout), start(layout)
    before = {name: parameter.clone() for name, parameter, _ in warm.parameters()}
    with Kernels() as first:
        warm_up(warm, MODEL, layout)
    for name, parameter, _ in warm.parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None or not parameter.grad.any()
    with Kernels() as step:
        losses, gradients = one_step(warm, layout)
    expected_losses, expected = one_step(cold, layout)
    assert all(torch.equal(losses[m], expected_losses[m]) for m in expected_losses)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    heavy = ("addmm", "mm", "bmm", "gelu", "attention", "layer_norm", "softmax", "embedding")
    missed = {c for c in step.called - first.called if any(word in c[0] for word in heavy)}
    # Added into a gradient in place, which the first microbatch of a step or a warm-up has not yet.
    assert {name for name, _ in missed} <= {"aten::addmm_"}
    assert any("mm" in name for name, _ in first.called)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(pp=2, global_batch=4, microbatch=2, schedule="gpipe", precision="fp64"),
        Layout(tp=2, sequence_parallel=True, global_batch=2, precision="fp64"),
        Layout(dp=2, global_batch=4, recompute="full", precision="fp64"),
    ],
    ids=["gpipe", "tensor", "data"],
)
def test_calls_what_a_step_calls_and_changes_nothing(layout, run_ranks):
    run_ranks(2, lambda: compare(layout))
