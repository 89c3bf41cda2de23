"""The attention core against its definition, one head and one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from runtime.models.attention import attend


def definition(query, key, value):
    rows, length, heads, width = query.shape
    group = heads // key.shape[2]
    result = torch.empty_like(query)
    for row in range(rows):
        for head in range(heads):
            for position in range(length):
                seen = slice(0, position + 1)
                keys, values = key[row, seen, head // group], value[row, seen, head // group]
                weights = (keys @ query[row, position, head] / math.sqrt(width)).softmax(0)
                result[row, position, head] = weights @ values
    return result


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_definition(kv_heads):
    torch.manual_seed(0)
    query = torch.randn(2, 6, 4, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, 6, kv_heads, 8, dtype=torch.float64)
    expected = definition(query, key, value)
    torch.testing.assert_close(attend(query, key, value, None), expected, rtol=1e-12, atol=1e-12)
