"""Single kernels: bounds, tiles, widths, and columns of sizes against one size at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.costs.roofline import bandwidth, matmul_seconds, misalignment, peak_flops
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


def test_the_narrower_the_loads_the_slower() -> None:
    whole, part, single, odd = (float(misalignment(2048, 1024, width)) for width in (1024, 1000, 1002, 1001))
    assert whole == 1
    assert whole < part < single < odd
    # strided products of the attention core leave the tensor cores altogether
    assert float(misalignment(2048, 1002, 2048, batch=8)) > odd
    assert float(misalignment(2048, 1000, 2048, batch=8)) == 1


def test_columns_of_products_have_the_times_of_single_ones() -> None:
    m, k, n = np.array([64, 2048, 4096]), np.array([96, 1000, 12288]), np.array([50257, 1536, 8])
    batch = np.array([1, 8, 1])
    columns = matmul_seconds(A100, "bf16", m=m, k=k, n=n, batch=batch)
    for i in range(3):
        single = matmul_seconds(A100, "bf16", m=int(m[i]), k=int(k[i]), n=int(n[i]), batch=int(batch[i]))
        assert columns[i] == pytest.approx(float(single))


def test_a_device_without_multiprocessors_has_no_tiles() -> None:
    device = A100.model_copy(update={"multiprocessors": None})
    seconds = float(matmul_seconds(device, "bf16", m=8192, k=8192, n=8192))
    assert seconds == pytest.approx(2 * 8192**3 / (312e12 * A100.gemm_efficiency), rel=1e-2)
