"""Recomputation chosen per stage: each rank takes the layers and the recomputation that fit its own depth.

Under 1F1B the first rank holds p microbatches and the last one; recomputing only where memory is short, and
giving those ranks fewer layers, is quicker than recomputing everywhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.bounds import depth
from planner.columns import COLUMNS, LayerTimes, LayoutColumns, Seconds, choice_columns, mode_times
from planner.costs import memory
from planner.rank_bounds import Pricing, rank_bytes
from planner.schedules.families import find_family
from planner.space import RECOMPUTES, Choices, Column, Space, Variants

STEPS = 12  # halvings of the slowest rank's time, always from below


def ends_of(name: str, pp: Column) -> tuple[Seconds, Seconds, NDArray[np.bool_]]:
    """[rows, max(pp)] each: 1 for the rank of the first stage, and of the last; and which ranks exist."""
    rank, ranks = np.arange(int(pp.max())), pp[:, None]
    first = np.broadcast_to((rank == 0) * 1.0, (len(pp), len(rank)))
    last = first if find_family(name).placement == "v" else (rank == ranks - 1) * 1.0
    return first, last, rank < ranks


def most_layers(
    pricing: Pricing, columns: LayoutColumns, *, name: str, chunks: Column, microbatches: Column
) -> Seconds:
    """Return how many layers fit each rank's memory under each recomputation; −1 where not even none do.

    The result is [modes, rows, max(pp)].
    """
    wide = replace(columns, **{f: getattr(columns, f)[:, None] for f in COLUMNS})
    first, last, _ = ends_of(name, columns.pp)
    held = depth(
        name,
        rank=np.minimum(np.arange(first.shape[1]), wide.pp - 1),
        pp=wide.pp,
        chunks=chunks[:, None],
        microbatches=microbatches[:, None],
    )
    result = []
    for mode in RECOMPUTES:
        parts = rank_bytes(pricing, wide, mode)
        none, one = (parts.total(layers=n, depth=held, first=first, last=last) for n in (0.0, 1.0))
        room = _capacity(pricing) - none
        result.append(np.where(room < 0, -1.0, np.floor(room / np.maximum(one - none, 1e-9))))
    return np.stack(result)


def _capacity(pricing: Pricing) -> float:
    """Return the largest peak that fits the device, by halving."""
    low, high = 0.0, 2.0 * pricing.cluster.device.memory_bytes
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if memory.fits(pricing.cluster.device, middle) else (low, middle)
    return high


def mixed_bounds(
    space: Space, pricing: Pricing, choices: Choices, variants: Variants
) -> tuple[Seconds, NDArray[np.bool_]]:
    """Return the least seconds of `variants` with recomputation per stage, infinite where nothing fits.

    The second array is False where every rank fits without recomputing: then the uniform layout is the same.
    """
    seconds = np.full(len(variants), np.inf)
    useful = np.zeros(len(variants), dtype=bool)
    picked = choices.take(variants.choice)
    columns = replace(choice_columns(space, picked), zero=variants.zero)
    microbatches = space.skeletons.microbatches[picked.skeleton]
    times = mode_times(space, picked, pricing.software, pricing.costs, range(len(RECOMPUTES)))
    layers = space.model.layers
    for schedule in sorted(set(variants.schedule.tolist())):
        own = np.flatnonzero(variants.schedule == schedule)
        name, some = space.schedules[schedule], columns.take(own)
        m = microbatches[own]
        most = most_layers(pricing, some, name=name, chunks=variants.chunks[own], microbatches=m)
        own_times = [t.take(own) for t in times]
        seconds[own] = m * _slowest(layers, most, own_times, ends_of(name, some.pp))
        # With room for one layer more than the average, every rank can do without recomputing.
        even = -(-layers // some.pp) + 1
        useful[own] = ((most[0] < even[:, None]) & ends_of(name, some.pp)[2]).any(axis=1)
    return seconds, useful


def _slowest(
    layers: int,
    most: Seconds,
    times: list[LayerTimes],
    ends: tuple[Seconds, Seconds, NDArray[np.bool_]],
) -> Seconds:
    """Return the least time of the slowest rank: halve until it is known, from below."""
    block = np.stack([t.block.both for t in times])[:, :, None]
    extra = ends[0] * times[0].first.both[:, None] + ends[1] * times[0].last.both[:, None]
    exists = ends[2]

    def held(slowest: Seconds) -> NDArray[np.bool_]:
        room = (slowest[None, :, None] - extra[None]) / block
        counts = np.where(room < 0, -1.0, np.minimum(most, np.floor(room + 1e-9))).max(axis=0)
        able = ((counts >= 0) | ~exists).all(axis=1)
        return np.asarray(((counts * exists).sum(axis=1) >= layers) & able)

    low = np.zeros(most.shape[1])
    high = layers * block[:, :, 0].max(axis=0) + extra.max(axis=1)
    possible = held(high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = held(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(possible, low, np.inf)
