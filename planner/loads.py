"""The most even split of a model's layers over pipeline ranks, for many layouts at once.

No contiguous split of the layers has a slowest rank that is quicker than `Loads.slowest`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.columns import LayerTimes, Seconds
from planner.schedules.family import Family
from planner.skeletons import Column


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Loads:
    """Work and layers of the ranks under the best split, per choice.

    `slowest` is the least possible time of the slowest rank for one microbatch, `total` that of all ranks
    together; `first_layers` and `last_layers` are the fewest layers that the balanced split gives the first
    and the last rank, `base` those of any other rank, `most` the most of any rank.
    """

    layers: int
    slowest: Seconds
    total: Seconds
    base: Column
    most: Column
    first_layers: Column
    last_layers: Column

    def take(self, index: Column) -> Loads:
        """Return the rows at `index`."""
        return replace(self, **{name: getattr(self, name)[index] for name in _LOAD_COLUMNS})

    def loosened(self, rows: NDArray[np.bool_]) -> Loads:
        """Return what still holds where the layers of `rows` are split in any other way."""
        return replace(
            self,
            base=np.where(rows, 0, self.base),
            most=np.where(rows, self.layers, self.most),
            first_layers=np.where(rows, 0, self.first_layers),
            last_layers=np.where(rows, 0, self.last_layers),
        )


_LOAD_COLUMNS = ("slowest", "total", "base", "most", "first_layers", "last_layers")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Splits:
    """The best split where the model's ends lie on two ranks, and where they lie on one (`folded`, a V)."""

    straight: Loads
    folded: Loads

    def take(self, index: Column) -> Splits:
        """Return the rows at `index`."""
        return Splits(straight=self.straight.take(index), folded=self.folded.take(index))

    def loosened(self, rows: NDArray[np.bool_]) -> Splits:
        """Return what still holds where the layers of `rows` are split in any other way."""
        return Splits(straight=self.straight.loosened(rows), folded=self.folded.loosened(rows))

    def of(self, family: Family) -> Loads:
        """Return the split that `family` gets."""
        return self.straight if family.placement == "loop" else self.folded

    def pick(self, index: Column, folded: NDArray[np.bool_]) -> Loads:
        """Return the rows at `index` of one of the two, row by row."""
        one, two = self.straight, self.folded
        return replace(
            one,
            **{
                name: np.where(folded, getattr(two, name)[index], getattr(one, name)[index])
                for name in _LOAD_COLUMNS
            },
        )

    @property
    def least(self) -> Loads:
        """What holds of both."""
        one, two = self.straight, self.folded
        return replace(
            one,
            slowest=np.minimum(one.slowest, two.slowest),
            most=np.maximum(one.most, two.most),
            first_layers=np.minimum(one.first_layers, two.first_layers),
            last_layers=np.minimum(one.last_layers, two.last_layers),
        )


def splits(layers: int, pp: Column, times: LayerTimes) -> Splits:
    """Return both balanced splits of `layers` blocks over `pp` ranks."""
    return Splits(straight=loads(layers, pp, times), folded=loads(layers, pp, times, folded=True))


def loads(layers: int, pp: Column, times: LayerTimes, *, folded: bool = False) -> Loads:
    """Return the loads of the time-balanced split of `layers` blocks over `pp` ranks.

    With `folded` the first rank holds both ends of the model.
    """
    block, first, last = times.block.both, times.first.both, times.last.both
    total = layers * block + first + last
    if folded:
        first, last = first + last, np.zeros_like(last)
    slowest = _slowest(layers, pp, total, parts=(block, first, last))
    base = layers // pp
    first_layers = np.minimum(base, _fits(slowest, block, first))
    last_layers = np.minimum(base, _fits(slowest, block, last))
    # What the ends leave goes to the ranks between them, evenly.
    rest = layers - (pp - 2) * base - first_layers - last_layers
    most = np.minimum(_fits(slowest, block, 0.0), base - (-rest // np.maximum(1, pp - 2)))
    return Loads(
        layers=layers,
        slowest=slowest,
        total=total,
        base=base,
        most=np.where(pp == 1, layers, most),
        first_layers=first_layers,
        last_layers=last_layers,
    )


def _fits(seconds: Seconds, block: Seconds, extra: Seconds | float) -> Column:
    """How many blocks fit into `seconds` beside `extra`."""
    return np.asarray(np.floor((seconds - extra) / block * (1 + 1e-12) + 1e-9), dtype=np.int64)


def _slowest(layers: int, pp: Column, total: Seconds, *, parts: tuple[Seconds, Seconds, Seconds]) -> Seconds:
    """Return the least T such that ranks no slower than T hold all layers.

    T is one of a·block, first + b·block, last + c·block; candidates are tried upwards from the average.
    """
    block, first, last = parts
    slowest = np.maximum(total / pp, np.maximum(first, last))
    slowest = _candidate(slowest, block, first, last)
    result = np.where(pp == 1, total, slowest)
    open_rows = np.flatnonzero(pp > 1)
    while len(open_rows):
        t, b, f, e = result[open_rows], block[open_rows], first[open_rows], last[open_rows]
        held = (pp[open_rows] - 2) * _fits(t, b, 0.0) + _fits(t, b, f) + _fits(t, b, e)
        short = held < layers
        open_rows = open_rows[short]
        result[open_rows] = _next_candidate(
            result[open_rows], block[open_rows], first[open_rows], last[open_rows]
        )
    return np.asarray(result)


def _candidate(at_least: Seconds, block: Seconds, first: Seconds, last: Seconds) -> Seconds:
    """Return the smallest time of a whole number of blocks, with or without an end, from `at_least` on."""
    found = [
        extra + np.maximum(0.0, np.ceil((at_least - extra) / block - 1e-9)) * block
        for extra in (0.0, first, last)
    ]
    return np.asarray(np.minimum.reduce(found))


def _next_candidate(after: Seconds, block: Seconds, first: Seconds, last: Seconds) -> Seconds:
    """Return the smallest such time that is longer than `after`."""
    found = [
        extra + np.maximum(0.0, np.floor((after - extra) / block + 1e-9) + 1) * block
        for extra in (0.0, first, last)
    ]
    return np.asarray(np.minimum.reduce(found))
