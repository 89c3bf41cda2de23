"""Recomputation: the same losses and gradients, fewer tensors kept."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from profiles.model import ModelSpec
from runtime.models import Stage, build_stage
from runtime.recompute import recomputed
from runtime.tensor_parallel import TensorParallel

SPECS = {
    "gpt2": ModelSpec(layers=3, hidden=32, heads=4, vocab=31, seq_len=16),
    "llama": ModelSpec(
        layers=3,
        hidden=32,
        heads=4,
        kv_heads=2,
        vocab=31,
        seq_len=16,
        position="rope",
        norm="rmsnorm",
        gated_mlp=True,
        tied_embeddings=False,
    ),
}


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def spec(request) -> ModelSpec:
    return request.param


def build(spec: ModelSpec, recompute="none", *, first=True, last=True) -> Stage:
    return build_stage(
        spec,
        layers=range(3),
        first=first,
        last=last,
        tp=TensorParallel(),
        seed=1,
        dtype=torch.float64,
        device=torch.device("cpu"),
        recompute=recompute,
    )


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("deferred", [False, True])
def test_gradients_are_equal(spec, recompute, deferred):
    plain, again = build(spec), build(spec, recompute)
    for number in range(2):
        tokens, targets = torch.randint(0, spec.vocab, (2, 2, 16))
        expected, loss = plain(tokens, targets), again(tokens, targets)
        assert torch.equal(loss, expected)
        expected.backward()
        if deferred:
            with again.deferred.collecting(number):
                loss.backward()
        else:
            loss.backward()
    if deferred:
        assert all(parameter.grad is None for parameter in again.parameters())
        again.deferred.run(0)
        again.deferred.run(1)
    wanted = dict(plain.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter.grad, wanted[name].grad), name


@pytest.mark.parametrize("differentiable", [True, False])
def test_middle_stage(spec, differentiable):
    hidden, upstream = torch.randn(2, 2, 16, 32, dtype=torch.float64)
    results = []
    for recompute in ("none", "full"):
        stage = build(spec, recompute, first=False, last=False)
        leaf = hidden.clone().requires_grad_(differentiable)
        stage(leaf).backward(upstream)
        results.append((leaf.grad, {name: p.grad for name, p in stage.named_parameters()}))
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name])
    if differentiable:
        assert torch.equal(results[0][0], results[1][0])


class _Counter(TorchDispatchMode):
    """Counts how often attention and matrix products run."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        self.attention += name.startswith("_scaled_dot_product") and "backward" not in name
        self.products += name.split(".")[0] in {"mm", "addmm", "addmm_"}
        return func(*args, **(kwargs or {}))


def test_what_runs_again(spec):
    counts = {}
    for recompute in ("none", "selective", "full"):
        stage = build(spec, recompute, first=False, last=False)
        hidden = torch.randn(1, 16, 32, dtype=torch.float64, requires_grad=True)
        with _Counter() as counter:
            stage(hidden).sum().backward()
        counts[recompute] = (counter.attention, counter.products)
    linears = 7 if spec.gated_mlp else 6
    assert counts["none"] == (3, 3 * 3 * linears)
    assert counts["selective"] == (6, 3 * 3 * linears)
    assert counts["full"] == (6, 3 * 4 * linears)


def test_memory_kept_by_a_block(spec):
    kept = {}
    for recompute in ("none", "selective", "full"):
        stage = build(spec, recompute, first=False, last=False)
        hidden = torch.randn(1, 16, 32, dtype=torch.float64, requires_grad=True)
        own = {p.untyped_storage().data_ptr() for p in stage.parameters()}
        if stage.rotary is not None:
            own |= {stage.rotary.cosine.untyped_storage().data_ptr()}
            own |= {stage.rotary.sine.untyped_storage().data_ptr()}
        saved: dict[int, int] = {}

        def keep(tensor, own=own, saved=saved):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = stage(hidden)
        kept[recompute] = sum(saved.values())
        del result
    assert kept["full"] == 3 * hidden.nbytes
    assert kept["full"] < kept["selective"] < kept["none"]


def test_only_wanted_gradients_and_nothing_when_autograd_is_off():
    a = torch.ones(3, requires_grad=True)
    b = torch.full((3,), 2.0)
    recomputed(torch.mul, a, b).sum().backward()
    assert a.grad.tolist() == [2.0] * 3
    assert b.grad is None
    with torch.no_grad():
        assert not recomputed(torch.mul, a, b).requires_grad
