"""Recomputation chosen per stage: each rank takes the layers and the recomputation that fit its own depth.

Under 1F1B the first rank holds p microbatches and the last one; recomputing only where memory is short, and
giving those ranks fewer layers, is quicker than recomputing everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.bounds import depth
from planner.columns import COLUMNS, LayerTimes, LayoutColumns, Seconds, choice_columns, mode_times
from planner.costs import memory
from planner.rank_bounds import Pricing, rank_bytes, waiting_share
from planner.schedules.families import find_family
from planner.skeletons import Column
from planner.space import RECOMPUTES, Choices, Space, Variants

STEPS = 8  # halvings of the slowest rank's time, always from below


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Ranks:
    """[rows, max(pp)] each: microbatches in flight, 1 where a rank holds an end, and which ranks exist."""

    depth: Seconds
    first: Seconds
    last: Seconds
    exists: NDArray[np.bool_]


def ranks_of(
    schedules: Sequence[str], schedule: Column, *, pp: Column, chunks: Column, microbatches: Column
) -> Ranks:
    """Return the ranks of rows whose schedule is `schedules[schedule]`."""
    rank = np.arange(int(pp.max()))
    depths = np.empty((len(pp), len(rank)))
    v_shaped = np.zeros(len(pp), dtype=bool)
    for number in sorted(set(schedule.tolist())):
        own = np.flatnonzero(schedule == number)
        v_shaped[own] = find_family(schedules[number]).placement == "v"
        depths[own] = depth(
            schedules[number],
            rank=np.minimum(rank, pp[own, None] - 1),
            pp=pp[own, None],
            chunks=chunks[own, None],
            microbatches=microbatches[own, None],
        )
    end = np.where(v_shaped, 0, pp - 1)
    return Ranks(
        depth=depths,
        first=np.broadcast_to((rank == 0) * 1.0, depths.shape),
        last=(rank == end[:, None]) * 1.0,
        exists=rank < pp[:, None],
    )


def most_layers(pricing: Pricing, columns: LayoutColumns, ranks: Ranks) -> Seconds:
    """Return how many layers fit each rank's memory under each recomputation; −1 where not even none do.

    The result is [modes, rows, max(pp)].
    """
    wide = replace(columns, **{f: getattr(columns, f)[:, None] for f in COLUMNS})
    capacity = _capacity(pricing)
    ends = {"depth": ranks.depth, "first": ranks.first, "last": ranks.last}
    result = []
    for mode in RECOMPUTES:
        parts = rank_bytes(pricing, wide, mode)
        none, one = (parts.total(layers=layers, **ends) for layers in (0.0, 1.0))
        room = capacity - none
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
    picked = choices.take(variants.choice)
    columns = replace(choice_columns(space, picked), zero=variants.zero)
    microbatches = space.skeletons.microbatches[picked.skeleton]
    ranks = ranks_of(
        space.schedules,
        variants.schedule,
        pp=columns.pp,
        chunks=variants.chunks,
        microbatches=microbatches,
    )
    most = most_layers(pricing, columns, ranks)
    times = mode_times(space, picked, pricing.software, pricing.costs, range(len(RECOMPUTES)))
    seconds = microbatches * _slowest(space.model.layers, most, times, ranks)
    seconds = seconds * (1 + waiting_share(pricing, columns.world_size))
    # With room for one layer more than the average, every rank can do without recomputing.
    even = -(-space.model.layers // columns.pp) + 1
    useful = ((most[0] < even[:, None]) & ranks.exists).any(axis=1)
    return seconds, useful


def _slowest(layers: int, most: Seconds, times: list[LayerTimes], ranks: Ranks) -> Seconds:
    """Return the least time of the slowest rank: halve until it is known, from below."""
    block = np.stack([t.block.both for t in times])[:, :, None]
    extra = ranks.first * times[0].first.both[:, None] + ranks.last * times[0].last.both[:, None]
    exists = ranks.exists

    def held(slowest: Seconds) -> NDArray[np.bool_]:
        room = (slowest[None, :, None] - extra[None]) / block
        counts = np.where(room < 0, -1.0, np.minimum(most, np.floor(room + 1e-9))).max(axis=0)
        able = ((counts >= 0) | ~exists).all(axis=1)
        return np.asarray(((counts * exists).sum(axis=1) >= layers) & able)

    # Nothing recomputed and evenly spread is quickest; everything recomputed rarely has to be exceeded.
    ranks_used = exists.sum(axis=1)
    low = layers * block[0, :, 0] / ranks_used
    high = layers * block[:, :, 0].max(axis=0) + extra.max(axis=1)
    possible = held(high)
    even = -(-layers // ranks_used) * block[:, :, 0].max(axis=0) + extra.max(axis=1)
    for step in range(STEPS):
        middle = (low + high) / 2 if step else np.minimum(even, high)
        enough = held(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(possible, low, np.inf)
