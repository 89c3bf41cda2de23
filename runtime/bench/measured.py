"""What was measured at one point so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.bench.stopwatch import Lap


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one component and microbatch: kept from forward to backward, and on top while running."""

    activation_bytes: int
    workspace_bytes: int


@dataclass(kw_only=True)
class Measured:
    """Samples of one point by phase, from all ranks and rounds."""

    laps: dict[str, list[Lap]] = field(default_factory=dict)
    footprint: Footprint | None = None

    def add(self, more: Measured) -> None:
        """Append the samples of `more`."""
        for name, laps in more.laps.items():
            self.laps.setdefault(name, []).extend(laps)
        self.footprint = self.footprint or more.footprint
