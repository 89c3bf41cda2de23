"""What a published record measured: step time, peak memory, or that it ran out of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from planner.layout import Layout
from planner.validate_case import MemoryView, SkippedError
from profiles.model import ModelSpec

Data = Mapping[str, Any]


def step_seconds(model: ModelSpec, layout: Layout, measured: Data, derived: Data) -> float | None:
    """Return the seconds of a step: as stated, or from a throughput; None where there is neither.

    Raises:
        SkippedError: when one of them is no positive number.
    """
    for values in (measured, derived):
        for key, unit in (("iteration_time_s", 1.0), ("iteration_time_ms", 1e-3)):
            seconds = _quantity(values, key)
            if seconds:
                return seconds * unit
    tokens = layout.global_batch * model.seq_len
    own = _quantity(measured, "tokens_per_s_per_gpu") or _quantity(derived, "tokens_per_s_per_gpu")
    if own:
        return tokens / own / layout.world_size
    for key, unit in (("tokens_per_s", 1.0), ("sequences_per_s", model.seq_len)):
        rate = _quantity(measured, key)
        if rate:
            return tokens / (rate * unit)
    samples = _quantity(measured, "samples_per_s_per_gpu")
    return layout.global_batch / samples / layout.world_size if samples else None


def peak_bytes(measured: Data, remarks: str) -> tuple[float | None, MemoryView]:
    """Return the peak and what it counts: allocated tensors, unless the source says otherwise.

    Raises:
        SkippedError: when it is no positive number.
    """
    allocated = _quantity(measured, "peak_allocated_gib")
    if allocated:
        return allocated * 2**30, "allocated"
    view: MemoryView = "allocated"
    if "nvidia-smi" in remarks:
        view = "device"
    elif "reserved" in remarks:
        view = "reserved"
    if "allocator reserve" in remarks:
        return None, view  # a pool of unknown size says nothing about what the run needs
    for key, unit in (("peak_memory_gib", 2**30), ("peak_memory_gb", 1e9)):
        peak = _quantity(measured, key)
        if peak:
            return peak * unit, view
    return None, view


def ran_out_of_memory(measured: Data) -> bool:
    """Return whether the record says so, as a flag or in a word."""
    return str(measured.get("out_of_memory") or "no").lower() not in {"no", "false", "none", "0"}


def _quantity(values: Data, key: str) -> float | None:
    """Return a measured value, or None where there is none.

    Raises:
        SkippedError: when it is no positive number.
    """
    value = values.get(key)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise SkippedError(f"{key} is {value!r}, not a positive number")
    return number
