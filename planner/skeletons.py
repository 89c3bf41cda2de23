"""Degrees and microbatches of all layouts: what is decided first, and bounded at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from planner.pins import Pins
from profiles.model import ModelSpec

Column = NDArray[np.int64]


# Bundles of columns, here and in the search, have no == (that of arrays is an array) and no repr (it would
# print them all).
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Skeletons:
    """Degrees and microbatch of every group of layouts; `microbatches` follows from them."""

    tp: Column
    pp: Column
    dp: Column
    microbatch: Column
    microbatches: Column

    def __len__(self) -> int:
        """Count the skeletons."""
        return len(self.tp)

    def take(self, index: Column) -> Skeletons:
        """Return the rows at `index`."""
        return Skeletons(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def all_skeletons(model: ModelSpec, *, devices: int, global_batch: int, pins: Pins, idle: bool) -> Skeletons:
    """Return every tp that divides heads and widths, every pp up to the layers, every dp and microbatch that
    honour the global batch exactly, on up to `devices` devices (exactly `devices` unless `idle`).
    """
    common = int(np.gcd.reduce([model.heads, model.kv_heads, model.ffn_hidden]))
    tps = [d for d in divisors(common) if d <= devices and pins.allow("tp", d)]
    pps = [p for p in range(1, min(model.layers, devices) + 1) if pins.allow("pp", p)]
    batches = np.array(
        [
            (dp, microbatch)
            for dp in divisors(global_batch)
            if dp <= devices and pins.allow("dp", dp)
            for microbatch in divisors(global_batch // dp)
            if pins.allow("microbatch", microbatch)
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    tp, pp = (
        a.ravel()
        for a in np.meshgrid(np.array(tps, dtype=np.int64), np.array(pps, dtype=np.int64), indexing="ij")
    )
    # dp ascends, so what the devices suffice for are the first ones.
    room = np.searchsorted(batches[:, 0], devices // (tp * pp), side="right")
    place = np.arange(room.sum()) - np.repeat(np.cumsum(room) - room, room)
    tp, pp, dp, microbatch = np.repeat(tp, room), np.repeat(pp, room), batches[place, 0], batches[place, 1]
    if not idle:
        keep = np.flatnonzero(tp * pp * dp == devices)
        tp, pp, dp, microbatch = (a[keep] for a in (tp, pp, dp, microbatch))
    return Skeletons(
        tp=tp, pp=pp, dp=dp, microbatch=microbatch, microbatches=global_batch // (dp * microbatch)
    )


def divisors(number: int) -> list[int]:
    """Return the divisors of `number`, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]
