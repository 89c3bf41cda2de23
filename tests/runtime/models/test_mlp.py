"""The gated activation against autograd, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from profiles.model import ModelSpec
from runtime.models.mlp import ACTIVATIONS, MLP, _Gated

REFERENCE = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": lambda x: x * torch.sigmoid(x),
    "relu": lambda x: x.clamp(min=0),
}


def mlp(**changes) -> MLP:
    fields = {"layers": 1, "hidden": 6, "heads": 2, "ffn_hidden": 10, "vocab": 9, "seq_len": 4}
    torch.manual_seed(0)
    result = MLP(ModelSpec(**(fields | changes))).double()
    for parameter in result.parameters():
        torch.nn.init.normal_(parameter)
    return result


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
def test_equals_definition(name, gated):
    ours = mlp(activation=name, gated_mlp=gated)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    inner = functional.linear(y, ours.up.weight.detach(), ours.up.bias.detach())
    if gated:
        inner = inner * REFERENCE[name](
            functional.linear(y, ours.gate.weight.detach(), ours.gate.bias.detach())
        )
    else:
        inner = REFERENCE[name](inner)
    expected = functional.linear(inner, ours.down.weight.detach(), ours.down.bias.detach())
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(2, 3, 6, dtype=torch.float64)
    ours(x).backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gated_backward(name):
    torch.manual_seed(1)
    gate, up = torch.randn(2, 3, 5, dtype=torch.float64).add_(0.1).unbind()
    inputs = (gate.requires_grad_(), up.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: _Gated.apply(a, b, ACTIVATIONS[name]), inputs)


def test_gated_keeps_its_two_inputs_only():
    saved = []
    gate, up = (torch.randn(3, 5, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        _Gated.apply(gate, up, ACTIVATIONS["silu"])
    assert saved == [gate.data_ptr(), up.data_ptr()]
