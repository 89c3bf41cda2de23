"""Embeddings against torch's, whole and in parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from runtime.models.embedding import PositionEmbedding, TokenEmbedding

TOKENS = torch.tensor([[0, 3, 3, 6], [6, 1, 5, 3]])


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("bounds", [[0, 7], [0, 3, 6, 7], [0, 4, 7, 7]])
def test_tokens_equal_torch(deferred, bounds):
    reference = torch.nn.Embedding(7, 3, dtype=torch.float64)
    upstream = torch.randn(2, 4, 3, dtype=torch.float64)
    reference(TOKENS).backward(upstream)
    total, gradients = 0.0, []
    for start, stop in pairwise(bounds):
        part = TokenEmbedding(stop - start, 3, whole=len(bounds) == 2, first_row=start).double()
        with torch.no_grad():
            part.weight.copy_(reference.weight[start:stop])
        result = part(TOKENS)
        if deferred:
            with part.deferred.collecting(0):
                result.backward(upstream)
            assert part.weight.grad is None
            part.deferred.run(0)
        else:
            result.backward(upstream)
        total = total + result
        gradients.append(part.weight.grad)
    assert torch.equal(total, reference(TOKENS))
    torch.testing.assert_close(torch.cat(gradients), reference.weight.grad, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_positions_of_each_shard(shards):
    weight = torch.randn(10, 3, dtype=torch.float64)
    hidden, upstream = torch.randn(2, 2, 8, 3, dtype=torch.float64)
    parts, gradient = [], torch.zeros(10, 3, dtype=torch.float64)
    for shard in range(shards):
        layer = PositionEmbedding(10, 3, shard=shard).double()
        with torch.no_grad():
            layer.weight.copy_(weight)
        leaf = hidden.chunk(shards, 1)[shard].clone().requires_grad_()
        parts.append(layer(leaf))
        parts[-1].backward(upstream.chunk(shards, 1)[shard])
        assert torch.equal(leaf.grad, upstream.chunk(shards, 1)[shard])
        gradient += layer.weight.grad
    torch.testing.assert_close(torch.cat(parts, 1), hidden + weight[:8])
    assert not gradient[8:].any()
    torch.testing.assert_close(gradient[:8], upstream.sum(0))
