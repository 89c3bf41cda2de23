"""Both norms against torch's, deferred and not."""

from __future__ import annotations

import pytest
import torch

from profiles.model import ModelSpec
from runtime.models.norms import LayerNorm, RMSNorm, build_norm


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_equals_torch(kind, deferred, frozen):
    torch.manual_seed(0)
    ours = kind(6, 1e-3).double()
    theirs = getattr(torch.nn, kind.__name__)(6, eps=1e-3, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.copy_(b.normal_())
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=not frozen)
    y = x.detach().clone().requires_grad_()
    upstream = torch.randn(2, 3, 6, dtype=torch.float64)
    theirs(y).backward(upstream)
    result = ours(x)
    if deferred:
        with ours.deferred.collecting(0):
            result.backward(upstream)
        assert all(parameter.grad is None for parameter in ours.parameters())
        ours.deferred.run(0)
    else:
        result.backward(upstream)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(result, theirs(y), **close)
    if not frozen:
        torch.testing.assert_close(x.grad, y.grad, **close)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **close)


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_bf16_statistics_are_those_of_fp32(kind):
    ours = kind(512, 1e-5)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, 512) + 3.0
    low = kind(512, 1e-5).bfloat16()
    with torch.no_grad():
        for a, b in zip(low.parameters(), ours.parameters(), strict=True):
            b.copy_(a.copy_(b))
    expected = ours(x.bfloat16().float())
    torch.testing.assert_close(low(x.bfloat16()).float(), expected, rtol=2e-2, atol=2e-2)


def test_spec_names_the_norm():
    spec = ModelSpec(layers=1, hidden=8, heads=2, vocab=9, seq_len=4)
    assert isinstance(build_norm(spec), LayerNorm)
    assert isinstance(build_norm(spec.model_copy(update={"norm": "rmsnorm"})), RMSNorm)
