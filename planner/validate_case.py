"""One published run in our terms, or the reason why it is not priced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from planner.costs.software import Software
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

MemoryView = Literal["allocated", "reserved", "device"]


class SkippedError(Exception):
    """A record that is outside the model; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One published run in our terms.

    `recompute_share` is the share of layers that recompute as the layout says (the others do not);
    `memory_view` is what the source's memory figure counts. `assumed` says what the source did not state.
    """

    id: str
    source: str
    gpu: str
    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    software: Software
    framework: str = ""
    measured_step_seconds: float | None = None
    measured_peak_bytes: float | None = None
    memory_view: MemoryView = "device"
    out_of_memory: bool = False
    recompute_share: float = 1.0
    assumed: tuple[str, ...] = ()

    @property
    def contest(self) -> tuple[object, ...]:
        """What has to be equal for two layouts to compete with each other."""
        # The vocabulary stays out: it is padded differently for every tp.
        name = (
            self.model.name,
            self.model.layers,
            self.model.hidden,
            self.model.heads,
            self.model.seq_len,
        )
        return (
            self.source, self.gpu, name, self.layout.world_size, self.layout.global_batch,
            self.layout.precision, self.software.name, self.framework,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Unpriced:
    """A record that is not priced, and why."""

    id: str
    source: str
    reason: str


def whole_number(value: Any) -> int | None:
    """Return `value` as a positive whole number, or None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return int(value) if 0 < value < math.inf and value == int(value) else None
    return int(value) if isinstance(value, str) and value.isdigit() and int(value) > 0 else None


def stated_count(data: Mapping[str, Any], key: str) -> int | None:
    """Return what a record states as a positive whole number, or None where it states nothing.

    Raises:
        SkippedError: when it states something else.
    """
    value = data.get(key)
    if value is None:
        return None
    number = whole_number(value)
    if number is None:
        raise SkippedError(f"{key} is {value!r}, not a whole number from 1 on")
    return number
