"""All layouts of a space, the least expected time first, expanded only as far as they are wanted.

    skeletons ── bounded roughly at once, by evenly divided work; again when their turn comes, with the
        │        options that make them fastest
        └─ choices ── bounded when their skeleton's turn comes
             └─ variants ── bounded when their choice's turn comes, handed out in order

A batch of each level waits in one heap under the least expectation it still holds: of a skeleton or a choice,
what its best schedule is expected to take. A layout may be expected to take a little less than that, so the
order over all is nearly exact; `least_bound`, which bounds everything not handed out yet, is proved.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from planner.bounds import even_work, least_seconds
from planner.columns import (
    LayerTimes,
    Seconds,
    choice_columns,
    layer_times,
    representatives,
)
from planner.loads import Splits, splits
from planner.mixed import mixed_bounds
from planner.rank_bounds import Pricing, after_pipeline, fits, memory_bound, waiting_share
from planner.skeletons import Column, Skeletons
from planner.space import MIXED, Choices, Space, Variants
from planner.variant_bounds import LEANEST, least_expectation, take_variants, variant_bounds

ROUGH_AT_ONCE = 2048
SKELETONS_AT_ONCE = 128
CHOICES_AT_ONCE = 256
MIXED_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Candidate:
    """One complete layout: row `row` of `variants`, of row `choice` of `choices` and their `times`.

    Its step takes no less than `bound_seconds`.
    """

    expected_seconds: float
    bound_seconds: float
    choices: Choices
    times: LayerTimes
    variants: Variants
    row: int

    @property
    def choice(self) -> int:
        """The row of its choice."""
        return int(self.variants.choice[self.row])

    @property
    def mixed(self) -> bool:
        """Whether recomputation is chosen per stage."""
        return int(self.choices.recompute[self.choice]) == MIXED


@dataclass(eq=False, repr=False)
class _Batch:
    """Rows of one level in ascending order of `expected`, handed out from `position` on.

    `bounds[i]` is the least bound of all rows from i on.
    """

    expected: Seconds
    bounds: Seconds
    rows: Column
    position: int = 0

    @property
    def least(self) -> float:
        return float(self.expected[self.position])

    @property
    def bound(self) -> float:
        return float(self.bounds[self.position])

    def next(self, count: int) -> Column:
        taken = self.rows[self.position : self.position + count]
        self.position += count
        return taken


@dataclass(eq=False, repr=False)
class _RoughBatch(_Batch):
    """Skeletons bounded roughly; row i has place `inverse[i]` in `quickest`, and again behind all others."""

    quickest: LayerTimes = field(kw_only=True)
    inverse: Column = field(kw_only=True)

    def times(self, rows: Column) -> LayerTimes:
        """Return the quickest times of skeletons, first without sequence parallelism, then with it."""
        place = self.inverse[rows]
        return self.quickest.take(np.concatenate([place, place + len(self.quickest.hop) // 2]))


@dataclass(eq=False, repr=False)
class _SkeletonBatch(_Batch):
    """Skeletons bounded one by one."""


@dataclass(eq=False, repr=False)
class _ChoiceBatch(_Batch):
    choices: Choices = field(kw_only=True)
    times: LayerTimes = field(kw_only=True)
    split: Splits = field(kw_only=True)


@dataclass(eq=False, repr=False)
class _VariantBatch(_Batch):
    """Variants; `own` are their own bounds, by row."""

    choices: Choices = field(kw_only=True)
    times: LayerTimes = field(kw_only=True)
    variants: Variants = field(kw_only=True)
    own: Seconds = field(kw_only=True)


@dataclass(eq=False, repr=False)
class _MixedBatch(_VariantBatch):
    """Variants bounded as if nothing were recomputed, to be bounded again by what fits.

    `slowest` is the work of the slowest rank with nothing recomputed, by choice.
    """

    slowest: Seconds = field(kw_only=True)


class Frontier:
    """The candidates of a space in ascending order of what is expected of them.

    `infeasible` counts, by reason, the layouts refused so far; `bounded` those bounded one by one, and
    `bounded_mixed` those with recomputation chosen per stage. Layouts
    whose bound is `limit` or more are left out; it may be lowered while iterating.
    """

    def __init__(self, space: Space, pricing: Pricing) -> None:
        self.space = space
        self.pricing = pricing
        self.infeasible: Counter[str] = Counter()
        self.bounded = 0
        self.bounded_mixed = 0
        self.limit = float("inf")
        self._left_out = float("inf")
        self._order = itertools.count()
        self._heap: list[tuple[float, int, _Batch]] = []

    @property
    def least_bound(self) -> float:
        """Seconds that no layout not handed out yet can beat; infinite when there is none."""
        return min(self._left_out, *(batch.bound for _, _, batch in self._heap), float("inf"))

    def __iter__(self) -> Iterator[Candidate]:
        """Yield every layout that may fit, the least expected time first."""
        self._push(self._rough())
        while self._heap:
            batch = heapq.heappop(self._heap)[2]
            if batch.bound >= self.limit:
                self._left_out = min(self._left_out, batch.bound)
                continue
            if isinstance(batch, _MixedBatch):
                self._push(self._mixed(batch, batch.next(MIXED_AT_ONCE)))
            elif isinstance(batch, _VariantBatch):
                expected, row = batch.least, int(batch.next(1)[0])
                self._push(batch)
                if batch.own[row] >= self.limit:
                    self._left_out = min(self._left_out, float(batch.own[row]))
                    continue
                yield Candidate(
                    expected_seconds=expected,
                    bound_seconds=float(batch.own[row]),
                    choices=batch.choices,
                    times=batch.times,
                    variants=batch.variants,
                    row=row,
                )
                continue
            elif isinstance(batch, _ChoiceBatch):
                for part in self._variants(batch, batch.next(CHOICES_AT_ONCE)):
                    self._push(part)
            elif isinstance(batch, _SkeletonBatch):
                self._push(self._choices(batch.next(SKELETONS_AT_ONCE)))
            elif isinstance(batch, _RoughBatch):
                self._push(self._skeletons(batch, batch.next(ROUGH_AT_ONCE)))
            self._push(batch)

    def _push(self, batch: _Batch) -> None:
        if batch.position < len(batch.rows):
            heapq.heappush(self._heap, (batch.least, next(self._order), batch))

    def _rough(self) -> _RoughBatch:
        """Bound every skeleton as if its layers were divided evenly: tp and microbatch alone decide."""
        skeletons = self.space.skeletons
        code = skeletons.tp * (int(skeletons.microbatch.max(initial=0)) + 1) + skeletons.microbatch
        first, inverse = representatives(code)
        times = self._fastest(first)
        total, chain, repeated = (
            np.where(times.known, each, np.inf).reshape(2, -1).min(axis=0)[inverse]
            for each in even_work(self.space.model.layers, times)
        )
        m, p = skeletons.microbatches, skeletons.pp
        with np.errstate(invalid="ignore"):  # ∞ · 0, of what was not measured
            bounds = np.where(p > 1, np.maximum(m * total / p, chain + (m - 1) * repeated), m * total)
        unknown = ~np.isfinite(bounds)
        if unknown.any():
            self.infeasible["not measured"] += self._layouts(np.flatnonzero(unknown))
        bounds = self._waiting(bounds, skeletons)
        rows = np.arange(len(skeletons))
        return _RoughBatch(*_sorted(bounds, bounds, rows), quickest=times, inverse=inverse)

    def _fastest(self, rows: Column) -> LayerTimes:
        """Times of skeletons with nothing recomputed or sent but over tp, then with the other form of tp."""
        twice = np.tile(rows, 2)
        zeros = np.zeros_like(twice)
        choices = Choices(
            skeleton=twice,
            sequence_parallel=np.repeat([0, 1], len(rows)),
            rank_order=zeros,
            recompute=zeros,
        )
        fastest = replace(self.space, rank_orders=("tp-dp-pp",))
        times = layer_times(fastest, choices, self.pricing.software, self.pricing.costs)
        return replace(times, hop=np.zeros_like(times.hop))

    def _waiting(self, bounds: Seconds, skeletons: Skeletons) -> Seconds:
        """Add what the ranks of a skeleton wait for the slowest node."""
        ranks = skeletons.tp * skeletons.pp * skeletons.dp
        return np.asarray(bounds * (1 + waiting_share(self.pricing, ranks)))

    def _skeletons(self, parent: _RoughBatch, rows: Column) -> _SkeletonBatch:
        """Bound skeletons by their fastest choice: nothing recomputed, nothing sent but over tp."""
        skeletons = self.space.skeletons.take(rows)
        times, p = parent.times(rows), np.tile(skeletons.pp, 2)
        split = splits(self.space.model.layers, p, times)
        bounds = least_seconds(p, np.tile(skeletons.microbatches, 2), times, split.least)
        likely = least_expectation(self.space, p, np.tile(skeletons.microbatches, 2), times, split)
        bounds, likely = (
            self._waiting(np.where(times.known, each, np.inf).reshape(2, -1).min(axis=0), skeletons)
            for each in (bounds, likely)
        )
        return _SkeletonBatch(*_sorted(np.maximum(bounds, likely), bounds, rows))

    def _layouts(self, rows: Column) -> int:
        choices = self.space.choices(rows)
        return int(self.space.sizes(choices.skeleton).sum())

    def _choices(self, rows: Column) -> _ChoiceBatch:
        choices = self.space.choices(np.sort(rows))
        times = layer_times(self.space, choices, self.pricing.software, self.pricing.costs)
        skeletons = self.space.skeletons.take(choices.skeleton)
        split = splits(self.space.model.layers, skeletons.pp, times)
        columns = choice_columns(self.space, choices)
        load = split.loosened(choices.recompute == MIXED).least
        line = least_seconds(skeletons.pp, skeletons.microbatches, times, load)
        after = np.minimum.reduce(
            [
                after_pipeline(
                    self.pricing,
                    replace(columns, zero=np.full_like(columns.tp, zero)),
                    times,
                    load,
                    microbatches=skeletons.microbatches,
                    first_ends_last=False,
                )
                for zero in self.space.zeros
            ]
        )
        likely = least_expectation(self.space, skeletons.pp, skeletons.microbatches, times, split)
        bounds, expected = (
            each * (1 + waiting_share(self.pricing, columns.world_size)) + after
            for each in (line, np.maximum(line, likely))
        )
        least = np.zeros(len(choices)) + 1.0 / self.space.model.layers
        peak = np.minimum.reduce(
            [
                memory_bound(
                    self.pricing,
                    replace(columns, zero=np.full_like(columns.tp, zero)),
                    (least, least),
                    LEANEST[choices.recompute],
                    load,
                )
                for zero in _leanest_zeros(self.space.zeros)
            ]
        )
        possible = fits(self.pricing, peak) & times.known
        sizes = self.space.sizes(choices.skeleton)
        self.infeasible["memory"] += int(sizes[~possible & times.known].sum())
        self.infeasible["not measured"] += int(sizes[~times.known].sum())
        kept = np.flatnonzero(possible)
        return _ChoiceBatch(
            *_sorted(expected[kept], bounds[kept], kept), choices=choices, times=times, split=split
        )

    def _variants(self, parent: _ChoiceBatch, rows: Column) -> tuple[_VariantBatch, _MixedBatch]:
        choices, times = parent.choices.take(rows), parent.times.take(rows)
        split = parent.split.take(rows)
        variants = self.space.variants(choices)
        bounds, expected, possible = variant_bounds(
            self.space, self.pricing, choices, variants, times=times, split=split
        )
        slowest = split.least.slowest
        self.bounded += len(variants)
        self.infeasible["memory"] += int(np.count_nonzero(~possible))
        mixed = choices.recompute[variants.choice] == MIXED
        plain, rest = (np.flatnonzero(possible & kind) for kind in (~mixed, mixed))
        shared: dict[str, Any] = {"choices": choices, "times": times, "variants": variants, "own": bounds}
        return (
            _VariantBatch(*_sorted(expected[plain], bounds[plain], plain), **shared),
            _MixedBatch(*_sorted(expected[rest], bounds[rest], rest), slowest=slowest, **shared),
        )

    def _mixed(self, parent: _MixedBatch, rows: Column) -> _VariantBatch:
        start = parent.position - MIXED_AT_ONCE
        before = parent.expected[start : start + len(rows)]
        self.bounded_mixed += len(rows)
        busy, useful = mixed_bounds(
            self.space, self.pricing, parent.choices, take_variants(parent.variants, rows)
        )
        self.infeasible["memory"] += int(np.count_nonzero(np.isinf(busy)))
        kept = np.flatnonzero(useful & np.isfinite(busy))
        bounds = np.maximum(busy, parent.own[rows])
        # What is expected beside the slowest rank's work is communication rather than more work.
        choice = parent.variants.choice[rows]
        skeletons = self.space.skeletons.take(parent.choices.skeleton[choice])
        leanest = self._waiting(skeletons.microbatches * parent.slowest[choice], skeletons)
        expected = np.maximum(before + np.maximum(0.0, busy - leanest), bounds)[kept]
        parent.own[rows] = bounds
        return _VariantBatch(
            *_sorted(expected, bounds[kept], rows[kept]),
            choices=parent.choices,
            times=parent.times,
            variants=parent.variants,
            own=parent.own,
        )


def _leanest_zeros(zeros: tuple[int, ...]) -> set[int]:
    """Return the ZeRO stages that may take least: 3 gathers whole blocks, which a small model feels."""
    return {max((z for z in zeros if z < 3), default=3), max(zeros, default=0)}


def _sorted(expected: Seconds, bounds: Seconds, rows: Column) -> tuple[Seconds, Seconds, Column]:
    """Order rows by expectation; the second array becomes the least bound from each place on."""
    finite = np.flatnonzero(np.isfinite(expected))
    order = finite[np.argsort(expected[finite], kind="stable")]
    least = np.minimum.accumulate(bounds[order][::-1])[::-1]
    return np.asarray(expected[order]), np.asarray(least), rows[order]
