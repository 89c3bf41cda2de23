"""The machine apart from the model's layers: matrix-product rate and the memory of a bare process."""

from __future__ import annotations

import gc
import time

import psutil
import torch

from runtime.allocator import give_back_unused
from runtime.bench.ranks import Place
from runtime.bench.stopwatch import Lap, stopwatch

CPU_SIDES = (256, 512, 1024)
GPU_SIDES = (2048, 4096, 8192)


def process_bytes(device: torch.device) -> int:
    """Return the memory that this process holds beside its tensors, which must have been let go of.

    On a processor that is the resident memory: code that has run, its tables and buffers, the transport's.
    On an accelerator it is what its context and libraries take of the device.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return max(0, total - free - torch.cuda.memory_reserved(device))
    give_back_unused()
    return int(psutil.Process().memory_info().rss)


def sample_matmul(place: Place, dtype: torch.dtype, *, window_seconds: float) -> dict[str, list[Lap]]:
    """Multiply square matrices of several sizes; return laps of seconds per FLOP, named by the side."""
    sides = GPU_SIDES if place.device.type == "cuda" else CPU_SIDES
    watch = stopwatch(place.device)
    laps: dict[str, list[Lap]] = {}
    for side in sides:
        left = torch.randn(side, side, device=place.device).to(dtype)
        right = torch.randn(side, side, device=place.device).to(dtype)
        out = left @ right
        end = time.perf_counter() + window_seconds / len(sides)
        found = laps.setdefault(str(side), [])
        while time.perf_counter() < end or len(found) < 3:
            watch.start()
            torch.mm(left, right, out=out)
            watch.lap("product")
            lap, share = watch.read()["product"], 1.0 / (2 * side**3)
            cpu = None if lap.cpu_seconds is None else lap.cpu_seconds * share
            found.append(Lap(lap.seconds * share, cpu))
    return laps
