"""The multi-process fixture itself: results by rank, failures with their traceback, nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch
import torch.distributed as dist


def test_results_come_by_rank_and_ranks_can_talk(run_ranks):
    def total() -> tuple[int, float]:
        value = torch.tensor(float(dist.get_rank() + 1))
        dist.all_reduce(value)
        return dist.get_rank(), value.item()

    assert run_ranks(3, total) == [(0, 6.0), (1, 6.0), (2, 6.0)]


def test_autograd_works_in_children_after_the_parent_used_it(run_ranks):
    torch.ones(2, requires_grad=True).sum().backward()

    def gradient() -> float:
        x = torch.ones(2, requires_grad=True)
        (x * x).sum().backward()
        return float(x.grad.sum())

    assert run_ranks(2, gradient) == [4.0, 4.0]


@pytest.mark.parametrize("fault", ["raise", "exit"])
def test_a_failing_rank_ends_the_others(run_ranks, fault):
    def fail() -> None:
        if dist.get_rank() == 1:
            if fault == "exit":
                os._exit(3)
            raise ValueError("the reason")
        time.sleep(30)

    start = time.monotonic()
    with pytest.raises(
        Exception, match="rank 1 raised[^$]*the reason" if fault == "raise" else "rank 1 ended"
    ):
        run_ranks(2, fail)
    assert time.monotonic() - start < 20
    assert not multiprocessing.active_children()
