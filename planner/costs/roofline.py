"""Roofline of single kernels: matrix products and streaming operations.

A kernel takes the larger of its arithmetic and its memory traffic, plus a fixed time. Matrix products lose
efficiency to partly filled tiles and waves, and to widths that cannot be loaded wide. All functions take
numbers or numpy arrays.
"""

from __future__ import annotations

import numpy as np

from planner.costs.flops import Number
from profiles.cluster import DeviceSpec, Precision

ELEMENT_BYTES: dict[Precision, int] = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 2}

# Output tiles a matrix-product library chooses from: rows, columns, fraction of the largest tile's rate.
# Fitted to 183 products measured on an A100 (mean error 3 %, SimuMax@4dcaae5 configs/system/a100_pcie.json).
TILES = ((256, 128, 1.0), (128, 128, 0.96), (128, 64, 0.74), (64, 64, 0.69))
SPLITS = (1, 2, 4)  # a deep product may be split along k and summed
CHOICES = np.array([(*tile, split) for tile in TILES for split in SPLITS]).T
PROLOGUE_DEPTH = 135  # filling and draining a tile in steps of k (132 alone, 135 with published runs)
WEIGHT_GRADIENT_FACTOR = 1.05  # a product with both operands transposed, accumulating in fp32 (same fit)
KERNEL_SECONDS = 2.06e-06  # shortest time of one kernel on the device (same fit, with published runs)
ALIGNED = 8  # elements; other widths cannot use the tensor cores' wide loads
LINE = 64  # elements of a cache line
PART_LINE_FACTOR = 1.25  # hidden 14,400 over 8 ranks against 14,336 (BigScience, 2022)
MISALIGNED_FACTOR = 1.75
ODD_FACTOR = 3.1  # an odd width, such as an unpadded vocabulary
MISALIGNED_BATCH_FACTOR = 9.2  # of strided products, which then leave the tensor cores


def peak_flops(device: DeviceSpec, precision: Precision) -> float:
    """Dense peak of `device` in `precision`, or in the nearest precision that it has."""
    for name in (precision, "bf16", "fp16", "tf32", "fp32", "fp64"):
        if name in device.flops_per_second:
            return float(device.flops_per_second[name])
    return float(max(device.flops_per_second.values()))


def matmul_seconds(
    device: DeviceSpec, precision: Precision, *, m: Number, k: Number, n: Number, batch: Number = 1
) -> Number:
    """Seconds of `batch` products (m × k)·(k × n).

    The library is assumed to choose the best of `TILES`. A tile's work is rounded up to whole tiles and
    whole waves over the multiprocessors, and each tile pays `PROLOGUE_DEPTH` extra steps of k.
    """
    rate = peak_flops(device, precision) * device.gemm_efficiency
    if device.multiprocessors is None:
        arithmetic = 2.0 * batch * m * k * n / rate
    else:
        axes = max(np.ndim(size) for size in (m, k, n, batch))
        rows, columns, fraction, split = CHOICES.reshape(CHOICES.shape + (1,) * axes)
        tiles = batch * np.ceil(m / rows) * np.ceil(n / columns)
        waves = np.ceil(split * tiles / device.multiprocessors)
        work = 2.0 * waves * device.multiprocessors * rows * columns * (k / split + PROLOGUE_DEPTH)
        merge = np.where(split > 1, 8.0 * split, 0.0) * batch * m * n / bandwidth(device)
        arithmetic = (work / (rate * fraction) + merge).min(axis=0)
    arithmetic = arithmetic * misalignment(m, k, n, batch)
    traffic = ELEMENT_BYTES[precision] * batch * (m * k + k * n + m * n) / bandwidth(device)
    return np.maximum(arithmetic, traffic) + KERNEL_SECONDS


def misalignment(m: Number, k: Number, n: Number, batch: Number = 1) -> Number:
    """Return how much longer a product takes for widths that cannot be loaded wide.

    Whole cache lines are best, 16 bytes at a time next; below that every element is loaded by itself.
    """

    def whole(unit: int) -> Number:
        return (m % unit == 0) & (k % unit == 0) & (n % unit == 0)

    strided = np.asarray(batch) > 1
    slow = np.where(strided, MISALIGNED_BATCH_FACTOR, np.where(whole(2), MISALIGNED_FACTOR, ODD_FACTOR))
    return np.where(whole(ALIGNED), np.where(strided | whole(LINE), 1.0, PART_LINE_FACTOR), slow)


def bandwidth(device: DeviceSpec) -> float:
    """Sustained bytes per second of a streaming kernel."""
    return float(device.memory_bytes_per_second * device.memory_efficiency)


def stream_seconds(device: DeviceSpec, traffic_bytes: Number, kernels: Number = 1) -> Number:
    """Seconds of memory-bound kernels that move `traffic_bytes` in total."""
    return traffic_bytes / bandwidth(device) + kernels * KERNEL_SECONDS
