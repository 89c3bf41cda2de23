"""Live storages against sizes worked out by hand."""

from __future__ import annotations

import torch

from runtime.bench.storage import LiveStorages

ROW = 128 * 64 * 4  # bytes of one [128, 64] fp32 tensor


def test_kept_for_backward_and_peak() -> None:
    weight = torch.randn(64, 64, requires_grad=True)
    inputs = torch.randn(128, 64)
    with LiveStorages() as storages:
        outputs = (inputs @ weight).relu().exp()
        assert storages.live_bytes == 2 * ROW  # relu and exp keep their results; the product is gone
        assert storages.peak_bytes == 2 * ROW  # the product and relu's result, or relu's and exp's
        outputs.sum().backward()
        assert storages.live_bytes == ROW + 64 * 64 * 4  # the outputs we hold, and the gradient


def test_views_and_in_place_results_are_not_new() -> None:
    inputs = torch.randn(128, 64)
    with LiveStorages() as storages:
        view = inputs.view(64, 128).t()
        inputs.add_(1)
        assert storages.live_bytes == 0
        copy = view.contiguous()
        assert storages.live_bytes == ROW
        del copy
        assert storages.live_bytes == 0
        assert storages.peak_bytes == ROW
