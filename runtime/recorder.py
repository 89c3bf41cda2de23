"""What this rank is doing now, and when it did what during the running step.

Timing a cell costs two clock reads, so it is always on; the watchdog reads `current` from its own thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from planner.schedules import LoweredAction

Label = LoweredAction | str


class Span(NamedTuple):
    """One entry of a rank's timeline, in seconds of the rank's clock; it waited from `start` to `ready`."""

    label: Label
    start: float
    ready: float
    end: float


class Recorder:
    """Collects the spans of one step. Everything between `begin` and `end` belongs to one cell."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._ready = 0.0
        self.step = 0
        self.current: Label = "start"
        self.since = clock()  # when anything last moved
        self.waiting = False  # for another rank
        self.spans: list[Span] = []

    def begin_step(self, step: int) -> None:
        """Forget the last step's spans."""
        self.step, self.spans = step, []

    def begin(self, label: Label) -> None:
        """Enter a cell."""
        self.current = label
        self.since = self._ready = self._clock()

    def waits(self) -> None:
        """Mark that the cell now waits for another rank."""
        self.waiting = True

    def waited(self) -> None:
        """Mark that what the cell waited for is here; all of the cell up to now was waiting."""
        self._ready = self._clock()
        self.waiting = False

    def ready(self) -> float:
        """Return when the running cell had what it waited for."""
        return self._ready

    def end(self) -> None:
        """Leave the cell."""
        self.spans.append(Span(self.current, self.since, self._ready, self._clock()))

    @contextmanager
    def phase(self, name: str, *, waits: bool = False) -> Iterator[None]:
        """Record a part of the step that is not in the schedule; with `waits` all of it is waiting."""
        self.begin(name)
        self.waiting = waits
        yield
        if waits:
            self.waited()
        self.end()

    def still_seconds(self) -> float:
        """Return how long nothing has moved."""
        return self._clock() - self.since
