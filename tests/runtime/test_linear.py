"""Deferred weight gradients: I then W equals B, and I alone leaves every gradient empty."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.nn import functional

from profiles.model import ModelSpec
from runtime.linear import DeferredGradients, Linear, add_bias
from runtime.models import build_stage
from runtime.tensor_parallel import TensorParallel


def model(dtype=torch.float64, **fields):
    spec = ModelSpec(**({"layers": 2, "hidden": 16, "heads": 4, "vocab": 31, "seq_len": 8} | fields))
    return build_stage(
        spec,
        layers=range(2),
        first=True,
        last=True,
        tp=TensorParallel(),
        seed=2,
        dtype=dtype,
        device=torch.device("cpu"),
    )


LLAMA = {"position": "rope", "norm": "rmsnorm", "gated_mlp": True, "kv_heads": 2, "tied_embeddings": False}


def layer(inputs: int = 5, outputs: int = 3) -> Linear:
    torch.manual_seed(0)
    result = Linear(inputs, outputs, bias=True).double()
    torch.nn.init.normal_(result.weight)
    torch.nn.init.normal_(result.bias)
    return result


@pytest.mark.parametrize("repeats", [1, 3])
def test_linear_equals_torch(repeats):
    ours = layer()
    weight, bias = (p.detach().clone().requires_grad_() for p in (ours.weight, ours.bias))
    for _ in range(repeats):  # gradients accumulate
        x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        upstream = torch.randn(2, 4, 3, dtype=torch.float64)
        ours(x).backward(upstream)
        functional.linear(y, weight, bias).backward(upstream)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.weight.grad, weight.grad, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(ours.bias.grad, bias.grad, rtol=1e-13, atol=1e-14)


def test_gradient_goes_into_the_buffer_that_is_there():
    ours = layer()
    buffer = torch.zeros_like(ours.weight)
    ours.weight.grad = buffer
    ours(torch.ones(1, 5, dtype=torch.float64)).sum().backward()
    assert ours.weight.grad is buffer
    assert torch.equal(buffer, torch.ones_like(buffer))


def test_frozen_parameters_get_no_gradient():
    ours = layer()
    ours.weight.requires_grad_(False)
    ours(torch.ones(1, 5, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert ours.weight.grad is None
    assert ours.bias.grad is not None


def test_changing_the_weight_before_its_backward_is_an_error():
    ours = layer()
    result = ours(torch.ones(1, 5, dtype=torch.float64)).sum()
    with torch.no_grad():
        ours.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


@pytest.mark.parametrize("fields", [{}, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_input_then_weight_gradient_equals_whole_backward(fields, order):
    whole, split = model(**fields), model(**fields)
    microbatches = [torch.randint(0, 31, (2, 2, 8)) for _ in range(3)]
    for number in order:
        whole(*microbatches[number]).backward()
    for number, (tokens, targets) in enumerate(microbatches):
        loss = split(tokens, targets)
        with split.deferred.collecting(number):
            loss.backward()
        assert all(parameter.grad is None for parameter in split.parameters())
    assert split.deferred.pending == (0, 1, 2)
    for number in order:
        split.deferred.run(number)
    assert split.deferred.pending == ()
    expected = dict(whole.named_parameters())
    for name, parameter in split.named_parameters():
        assert torch.equal(parameter.grad, expected[name].grad), name


@pytest.mark.parametrize("fields", [{}, LLAMA], ids=["gpt2", "llama"])
def test_input_gradient_alone_is_that_of_the_whole_backward(fields):
    spec = model(**fields).spec
    stages = [
        build_stage(
            spec,
            layers=range(2),
            first=False,
            last=False,
            tp=TensorParallel(),
            seed=2,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )
        for _ in range(2)
    ]
    hidden, upstream = torch.randn(2, 2, 8, 16, dtype=torch.float64)
    whole, split = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    stages[0](whole).backward(upstream)
    result = stages[1](split)
    with stages[1].deferred.collecting("a"):
        result.backward(upstream)
    assert torch.equal(whole.grad, split.grad)
    assert all(parameter.grad is None for parameter in stages[1].parameters())


def test_whole_backward_between_deferred_ones():
    ours = layer()
    x = torch.eye(5, dtype=torch.float64)
    with ours.deferred.collecting(0):
        ours(x).sum().backward()
    ours(x).sum().backward()
    assert torch.equal(ours.bias.grad, torch.full((3,), 5.0, dtype=torch.float64))
    ours.deferred.run(0)
    assert torch.equal(ours.bias.grad, torch.full((3,), 10.0, dtype=torch.float64))


def test_run_lets_go_of_activations():
    ours = layer()
    x = torch.ones(2, 5, dtype=torch.float64)
    alive = weakref.ref(x)
    with ours.deferred.collecting(0):
        ours(x).sum().backward()
    del x
    gc.collect()
    assert alive() is not None
    ours.deferred.run(0)
    assert alive() is None


def test_queue_refuses_misuse():
    deferred = DeferredGradients()
    with deferred.collecting(1), pytest.raises(RuntimeError, match="microbatch 1"), deferred.collecting(2):
        pass
    deferred.run(1)
    with pytest.raises(KeyError):
        deferred.run(1)


def test_add_bias_equals_torch():
    bias = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 3, 4, dtype=torch.float64)
    add_bias(x, bias, DeferredGradients()).backward(upstream)
    assert torch.equal(x.grad, upstream)
    torch.testing.assert_close(bias.grad, upstream.sum((0, 1)))


@pytest.mark.parametrize("fields", [{}, LLAMA], ids=["gpt2", "llama"])
def test_bf16_gradients_are_near_and_kept_in_fp32(fields):
    low, exact = model(torch.bfloat16, **fields), model(torch.float64, **fields)
    with torch.no_grad():
        for a, b in zip(low.parameters(), exact.parameters(), strict=True):
            b.copy_(a)
    for tokens, targets in torch.randint(0, 31, (3, 2, 2, 8)):
        low(tokens, targets).backward()
        exact(tokens, targets).backward()
    for (name, a), b in zip(low.named_parameters(), exact.parameters(), strict=True):
        assert a.grad.dtype == torch.float32
        # A key bias has no gradient at all, whence the floor.
        assert (a.grad.double() - b.grad).norm() < 0.03 * max(b.grad.norm(), 0.1), name


def test_bf16_gradients_do_not_stall():
    ours = Linear(1, 1, bias=True).bfloat16()
    for parameter in ours.parameters():
        parameter.grad_dtype = torch.float32
    for _ in range(1000):  # in bf16 the sum stops at 256 times the addend
        ours(torch.ones(1, 1, dtype=torch.bfloat16)).backward()
    assert ours.weight.grad.item() == ours.bias.grad.item() == 1000.0


def test_backward_uses_the_weights_that_lie_in_the_parameter():
    """Weight stashing (PipeDream): the owner puts a microbatch's version back before its backward."""
    ours = Linear(2, 2, bias=False).double()
    versions = [torch.eye(2, dtype=torch.float64) * scale for scale in (1.0, 2.0, 3.0)]
    inputs = [torch.ones(1, 2, dtype=torch.float64, requires_grad=True) for _ in versions]
    results = []
    for version, x in zip(versions, inputs, strict=True):
        ours.weight.data = version
        results.append(ours(x))
    for number in (2, 0, 1):
        ours.weight.data = versions[number]
        results[number].sum().backward()
    assert [x.grad.tolist() for x in inputs] == [[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]]
