"""Under which conditions was measured: clocks and power of the accelerator, other work on the processors."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch

from profiles.bench_request import BenchRequest
from runtime.bench.measured import Measured
from runtime.bench.points import LayerPoint, Point

NAMED = 3  # points that a note names
BUSY_SHARE = 1.15  # wall over processor time of a block from which other work is suspected


def conditions(
    request: BenchRequest, results: Mapping[Point, Measured], missing: Sequence[Point], device: torch.device
) -> tuple[str, ...]:
    """Return sentences for the table's notes; `missing` are the points that were not reached."""
    found = []
    if device.type == "cuda":
        found.append(accelerator_state(device))
    else:
        found.extend(_other_work(request, results))
    if missing:
        names = "; ".join(point.name for point in missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
        points = "1 point was" if len(missing) == 1 else f"{len(missing)} points were"
        found.append(f"{points} not reached in the time ({names}); run again to go on")
    return tuple(text for text in found if text)


def accelerator_state(device: torch.device) -> str:
    """Return clock, power and temperature of an NVIDIA device now, as far as the driver tells."""
    parts = []
    with suppress(Exception):  # a note is not worth failing for, whatever driver or binding is there
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        parts.append(f"{pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)} MHz")
        parts.append(f"{pynvml.nvmlDeviceGetPowerUsage(handle) / 1000:.0f} W")
        parts.append(f"{pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)} °C")
    return f"{device} after the last round: {', '.join(parts)}" if parts else ""


def _other_work(request: BenchRequest, results: Mapping[Point, Measured]) -> list[str]:
    """Say when blocks waited for a processor although every rank could have had one."""
    if request.cores is not None and request.ranks > request.cores:
        return []
    shares = [
        lap.seconds / lap.cpu_seconds
        for point, measured in results.items()
        if isinstance(point, LayerPoint) and point.component == "block"
        for lap in measured.laps.get("forward", ())
        if lap.cpu_seconds
    ]
    if request.threads > 1 or not shares or statistics.median(shares) < BUSY_SHARE:
        return []
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    times = f"{statistics.median(shares):.2f} ×"
    return [f"blocks took {times} their processor time: other work shared the processors{load}"]
