"""Rotary positions against complex multiplication, and their relative nature."""

from __future__ import annotations

import torch

from runtime.models.rotary import Rotary


def rotary(seq_len: int = 32, dtype: torch.dtype = torch.float64) -> Rotary:
    return Rotary(seq_len=seq_len, head_dim=8, theta=100.0, dtype=dtype, device=torch.device("cpu"))


def as_complex(heads: torch.Tensor) -> torch.Tensor:
    return torch.complex(heads[..., :4].contiguous(), heads[..., 4:].contiguous())


def test_turns_each_pair_by_position_times_frequency():
    heads = torch.randn(2, 32, 3, 8, dtype=torch.float64)
    frequency = 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    angle = torch.arange(32, dtype=torch.float64)[:, None] * frequency
    turned = as_complex(heads) * torch.polar(torch.ones_like(angle), angle)[:, None]
    torch.testing.assert_close(as_complex(rotary()(heads)), turned, rtol=1e-12, atol=1e-12)


def test_scores_depend_on_distance_only():
    query, key = torch.randn(2, 8, dtype=torch.float64)
    turned = rotary()(torch.stack((query, key)).expand(1, 32, 2, 8))[0]
    scores = [turned[i, 0] @ turned[i + 5, 1] for i in range(27)]
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(27), rtol=1e-12, atol=1e-12)


def test_backward_is_the_transpose():
    heads = torch.randn(1, 7, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotary(), (heads,))


def test_far_positions_keep_their_angle():
    length = 1 << 17
    table = rotary(length, torch.float32)
    angle = torch.tensor(length - 1, dtype=torch.float64)  # frequency 1; fp32 angles would be off by 0.004
    torch.testing.assert_close(table.cosine[-1, 0].double(), angle.cos(), rtol=0, atol=1e-6)


def test_low_precision_heads_stay_so():
    table = rotary(dtype=torch.bfloat16)
    assert table.cosine.dtype == torch.float32
    assert table(torch.randn(1, 4, 2, 8).bfloat16()).dtype == torch.bfloat16
