"""Time of the phases of one sample, on the clock that the device keeps.

On a processor a phase has wall time and processor time; on an accelerator the host only queues work, so
phases are bracketed by events of the device's stream and read after the stream has drained.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch


class Lap(NamedTuple):
    """Seconds of one phase; `cpu_seconds` is None on an accelerator."""

    seconds: float
    cpu_seconds: float | None


class Stopwatch(Protocol):
    """Sums the time of named phases: `start`, then `lap(name)` at the end of each phase, then `read`."""

    def start(self) -> None:
        """Begin a phase now."""

    def lap(self, name: str) -> None:
        """End the current phase as `name` and begin the next."""

    def read(self) -> dict[str, Lap]:
        """Return the summed time of every phase so far and start anew."""


def stopwatch(device: torch.device) -> Stopwatch:
    """Return the stopwatch for `device`."""
    return _EventStopwatch(device) if device.type == "cuda" else _ProcessorStopwatch()


class _ProcessorStopwatch:
    def __init__(self) -> None:
        self._laps: dict[str, tuple[float, float]] = {}
        self._wall = self._cpu = 0.0

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        before = self._laps.get(name, (0.0, 0.0))
        self._laps[name] = (before[0] + wall - self._wall, before[1] + cpu - self._cpu)
        self._wall, self._cpu = wall, cpu

    def read(self) -> dict[str, Lap]:
        laps = {name: Lap(wall, cpu) for name, (wall, cpu) in self._laps.items()}
        self._laps = {}
        return laps


class _EventStopwatch:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pairs: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._begin: torch.cuda.Event | None = None

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def start(self) -> None:
        self._begin = self._event()

    def lap(self, name: str) -> None:
        assert self._begin is not None, "lap without start"
        end = self._event()
        self._pairs.append((name, self._begin, end))
        self._begin = end

    def read(self) -> dict[str, Lap]:
        torch.cuda.synchronize(self._device)
        sums: dict[str, float] = {}
        for name, begin, end in self._pairs:
            sums[name] = sums.get(name, 0.0) + begin.elapsed_time(end) * 1e-3
        self._pairs = []
        return {name: Lap(seconds, None) for name, seconds in sums.items()}
