"""What the readers of the vendors' drivers hand back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.probe.pci import PciDevice
from profiles.topology import NodeDevice, Problem


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """The devices of one vendor, their relations (both orders of every known pair), and what went wrong.

    `places` gives the PCI device of a device by index; MIG slices share the one of their parent.
    """

    devices: tuple[NodeDevice, ...] = ()
    relations: Mapping[tuple[int, int], str] = field(default_factory=dict)
    places: Mapping[int, PciDevice] = field(default_factory=dict)
    switched: bool = False
    nvswitches: int | None = None
    driver: str | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
