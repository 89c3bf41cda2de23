"""Times of kernels: bounds, tiles, and columns of layouts against one layout at a time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.compute import (
    Slice,
    bandwidth,
    block_times,
    head_times,
    matmul_seconds,
    optimizer_seconds,
    peak_flops,
)
from planner.costs.software import MATERIALISED, MODERN
from profiles.model import ModelSpec
from profiles.presets import device_preset

A100 = device_preset("a100-sxm4-80gb")
SIZES = st.integers(1, 40).map(lambda n: 64 * n)


@given(m=SIZES, k=SIZES, n=SIZES)
def test_a_product_is_bounded_by_arithmetic_and_by_memory(m: int, k: int, n: int) -> None:
    seconds = matmul_seconds(A100, "bf16", m=m, k=k, n=n)
    assert seconds >= 2 * m * k * n / (peak_flops(A100, "bf16") * A100.gemm_efficiency)
    assert seconds >= 2 * (m * k + k * n + m * n) / bandwidth(A100)


def test_a_partly_filled_wave_costs_a_whole_one() -> None:
    full = matmul_seconds(A100, "bf16", m=256 * 108, k=8192, n=128)
    spill = matmul_seconds(A100, "bf16", m=256 * 109, k=8192, n=128)
    assert spill > 1.15 * full  # 1 % more work


def test_large_products_are_as_fast_as_measured() -> None:
    """4096 and 8192 square on an A100 SXM: 260 and 290 TFLOP/s at best, 245 sustained beside other work."""
    rate = 2 * 8192**3 / matmul_seconds(A100, "bf16", m=8192, k=8192, n=8192)
    assert 200e12 < rate < 290e12


def test_a_width_that_tensor_cores_cannot_load_is_slower() -> None:
    even = matmul_seconds(A100, "bf16", m=2048, k=1024, n=50304)
    odd = matmul_seconds(A100, "bf16", m=2048, k=1024, n=50257)
    assert odd > 1.5 * even


def test_flash_attention_beats_stored_scores_and_more_so_on_long_sequences(gpt: ModelSpec) -> None:
    part, flash = Slice(microbatch=4, tp=8), replace(MATERIALISED, flash_attention=True)
    ratios = []
    for length in (1024, 8192):
        model = gpt.model_copy(update={"seq_len": length})
        stored = block_times(model, A100, MATERIALISED, part).forward
        ratios.append(stored / block_times(model, A100, flash, part).forward)
    assert 1 < ratios[0] < ratios[1]


def test_columns_of_layouts_have_the_times_of_single_layouts(gpt: ModelSpec) -> None:
    microbatch, tp = np.array([1, 2, 4, 1]), np.array([1, 8, 4, 8])
    parallel = np.array([False, True, False, False])
    columns = block_times(
        gpt, A100, MATERIALISED, Slice(microbatch=microbatch, tp=tp, sequence_parallel=parallel)
    )
    for i in range(4):
        part = Slice(microbatch=int(microbatch[i]), tp=int(tp[i]), sequence_parallel=bool(parallel[i]))
        single = block_times(gpt, A100, MATERIALISED, part)
        for name in ("forward", "backward", "weight_gradient", "recompute_selective", "recompute_full"):
            assert np.asarray(getattr(columns, name))[i] == pytest.approx(float(getattr(single, name)))


def test_a_block_of_the_22b_model_takes_what_was_published(gpt: ModelSpec) -> None:
    """Korthikanti et al. 2022, table 4: 7.7 ms forward, 11.9 ms backward; 1.7 ms of each is traffic."""
    times = block_times(gpt, A100, MATERIALISED, Slice(microbatch=4, tp=8, precision="fp16"))
    assert float(times.forward) == pytest.approx((7.7 - 1.7) * 1e-3, rel=0.15)
    assert float(times.backward) == pytest.approx((11.9 - 1.7) * 1e-3, rel=0.15)


def test_the_head_is_split_over_tp(gpt: ModelSpec) -> None:
    whole = head_times(gpt, A100, MODERN, Slice(microbatch=4, tp=1)).forward
    split = head_times(gpt, A100, MODERN, Slice(microbatch=4, tp=8)).forward
    assert 6 < whole / split < 9


def test_the_optimizer_moves_every_state_once() -> None:
    seconds = optimizer_seconds(A100, 1e9, 4, 2)
    assert seconds == pytest.approx(1e9 * (8 + 24 + 2) / bandwidth(A100), rel=1e-3)
