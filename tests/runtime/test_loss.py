"""The vocabulary-parallel cross-entropy against torch's, whole and split over ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional

from runtime.loss import cross_entropy_sum
from runtime.tensor_parallel import TensorParallel

VOCAB = 11


def sample(scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, VOCAB, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(0, VOCAB, (2, 6), generator=generator)
    targets[0, 1] = targets[1, 3:] = -100
    return logits, targets


def reference(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = functional.cross_entropy(leaf.flatten(0, 1), targets.flatten(), reduction="sum")
    (loss * 0.37).backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("scale", [3.0, 1e4], ids=["mild", "would-overflow"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])  # 8 ranks: shares of 2, the last two hold 1 and no row
def test_equals_torch(run_ranks, ranks, scale):
    logits, targets = sample(scale)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        tp = TensorParallel(group=dist.group.WORLD, rank=dist.get_rank(), size=ranks)
        part = tp.slice(VOCAB)
        leaf = logits[..., part.start : part.stop].clone().requires_grad_()
        loss = cross_entropy_sum(leaf * 1.0, targets, tp, part.start)
        (loss * 0.37).backward()
        return loss.detach(), leaf.grad

    expected, gradient = reference(logits, targets)
    results = run_ranks(ranks, run)
    for loss, _ in results:
        torch.testing.assert_close(loss, expected, rtol=1e-14, atol=1e-13)
    joined = torch.cat([part for _, part in results], dim=-1)
    torch.testing.assert_close(joined, gradient, rtol=0, atol=1e-14)


def test_a_microbatch_without_valid_targets_is_zero_and_has_zero_gradient():
    logits, targets = sample()
    leaf = logits.requires_grad_()
    loss = cross_entropy_sum(leaf * 1.0, torch.full_like(targets, -100), TensorParallel())
    loss.backward()
    assert loss.item() == 0.0
    assert not leaf.grad.any()


def test_bf16_logits_are_summed_in_fp32():
    logits, targets = sample()
    low = logits.bfloat16().requires_grad_()
    loss = cross_entropy_sum(low * 1.0, targets, TensorParallel())
    loss.backward()
    expected, gradient = reference(low.detach().float(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(low.grad.float() * 0.37, gradient, rtol=1e-2, atol=1e-3)


def test_a_second_backward_is_refused_rather_than_wrong():
    logits, targets = sample()
    leaf = logits.requires_grad_()
    loss = cross_entropy_sum(leaf * 1.0, targets, TensorParallel())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()
