"""Timeline: when every action of a schedule starts and ends, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.schedules.action import Schedule
from planner.schedules.memory import peak_activations


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Start and end of every action, per rank, in the order of the rank's list.

    Per rank, `busy` (computing) + `wait` (between its first and last action, not computing) + `idle` (before
    the first or after the last, within a cycle) = `cycle`. A rank without actions is idle.
    """

    schedule: Schedule
    starts: tuple[Sequence[float], ...]
    ends: tuple[Sequence[float], ...]

    @cached_property
    def spans(self) -> tuple[float, ...]:
        """Per rank, the time from its first start to its last end."""
        return tuple(
            ends[-1] - starts[0] if ends else 0.0 for starts, ends in zip(self.starts, self.ends, strict=True)
        )

    @cached_property
    def makespan(self) -> float:
        """First start to last end over all ranks."""
        return max((ends[-1] for ends in self.ends if ends), default=0.0) - self.origin

    @cached_property
    def origin(self) -> float:
        """First start over all ranks."""
        return min((starts[0] for starts in self.starts if starts), default=0.0)

    @cached_property
    def cycle(self) -> float:
        """Longest span of one rank: what a step costs when steps follow each other without a barrier."""
        return max(self.spans, default=0.0)

    @cached_property
    def busy(self) -> tuple[float, ...]:
        """Per rank, the time spent in actions."""
        return tuple(sum(ends) - sum(starts) for starts, ends in zip(self.starts, self.ends, strict=True))

    @cached_property
    def wait(self) -> tuple[float, ...]:
        """Per rank, the time between its first and last action that no action fills."""
        return tuple(max(0.0, span - busy) for span, busy in zip(self.spans, self.busy, strict=True))

    @cached_property
    def idle(self) -> tuple[float, ...]:
        """Per rank, the rest of the cycle."""
        return tuple(self.cycle - span for span in self.spans)

    @property
    def bubble_fraction(self) -> float:
        """1 − busy / (ranks · cycle)."""
        return max(0.0, 1.0 - sum(self.busy) / (len(self.busy) * self.cycle)) if self.cycle else 0.0

    @cached_property
    def peak_activations(self) -> tuple[float, ...]:
        """Per rank, the most microbatches held at once, in units of all its layers."""
        return peak_activations(self.schedule)
