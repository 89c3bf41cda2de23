"""Bounds, expectations and fit of complete layouts, schedule by schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.bounds import depth, pipeline_bound
from planner.columns import LayerTimes, LayoutColumns, Seconds, choice_columns
from planner.expect import pipeline_expectation
from planner.loads import Splits
from planner.rank_bounds import Pricing, after_pipeline, fits, memory_bound, waiting_share
from planner.schedules.families import find_family
from planner.skeletons import Column
from planner.space import MIXED, RECOMPUTES, Choices, Space, Variants

# The recomputation that keeps least, in the order of RECOMPUTES and MIXED.
LEANEST = np.array([*RECOMPUTES, "full"])


def variant_bounds(
    space: Space,
    pricing: Pricing,
    choices: Choices,
    variants: Variants,
    *,
    times: LayerTimes,
    split: Splits,
) -> tuple[Seconds, Seconds, NDArray[np.bool_]]:
    """Return the least step seconds of `variants`, what is expected, and whether each may fit its device.

    `split` balances the layers; a mixed recomputation may split them otherwise, and is expected not to.
    """
    families = [find_family(name) for name in space.schedules]
    folded, whole = (
        np.array(flags, dtype=bool)[variants.schedule]
        for flags in (
            [family.placement != "loop" for family in families],
            [family.placement == "loop" and not family.split for family in families],
        )
    )
    columns = replace(choice_columns(space, choices).take(variants.choice), zero=variants.zero)
    m = space.skeletons.microbatches[choices.skeleton][variants.choice]
    loose = split.loosened(choices.recompute == MIXED).pick(variants.choice, folded)
    depths = _depths(space, columns, variants, m)
    lean = LEANEST[choices.recompute[variants.choice]]
    possible = fits(pricing, memory_bound(pricing, columns, depths, lean, loose, folded=folded))

    rows = np.flatnonzero(possible)
    some, m, columns, loose = take_variants(variants, rows), m[rows], columns.take(rows), loose.take(rows)
    own_times, even = times.take(some.choice), split.pick(some.choice, folded[rows])
    line, likely = np.empty(len(rows)), np.empty(len(rows))
    for number, name in enumerate(space.schedules):
        own = np.flatnonzero(some.schedule == number)
        shared: dict[str, Any] = {"pp": columns.pp[own], "chunks": some.chunks[own], "microbatches": m[own]}
        shared["times"] = own_times.take(own)
        line[own] = pipeline_bound(name, load=loose.take(own), **shared)
        likely[own] = pipeline_expectation(name, load=even.take(own), **shared)
    after, later = (
        after_pipeline(
            pricing,
            columns,
            own_times,
            loose,
            microbatches=m,
            first_ends_last=whole[rows],
            likely=probable,
        )
        for probable in (False, True)
    )
    slower = 1.0 + waiting_share(pricing, columns.world_size)
    bounds, expected = (np.full(len(variants), np.inf) for _ in range(2))
    bounds[rows] = line * slower + after
    expected[rows] = np.maximum(line, likely) * slower + np.maximum(after, later)
    return bounds, expected, possible


def _depths(space: Space, columns: LayoutColumns, variants: Variants, m: Column) -> tuple[Seconds, Seconds]:
    """Return the microbatches that the first and the last rank hold at their peaks."""
    first, last = np.empty(len(variants)), np.empty(len(variants))
    for number, name in enumerate(space.schedules):
        own = np.flatnonzero(variants.schedule == number)
        numbers = {"pp": columns.pp[own], "chunks": variants.chunks[own], "microbatches": m[own]}
        first[own] = depth(name, rank=np.zeros_like(own), **numbers)
        last[own] = depth(name, rank=columns.pp[own] - 1, **numbers)
    return first, last


def least_expectation(
    space: Space, pp: Column, microbatches: Column, times: LayerTimes, split: Splits
) -> Seconds:
    """Return what the pipeline is expected to take under the schedule that suits it best."""
    layers = space.model.layers
    least = np.full(len(pp), np.inf)
    for name in space.schedules:
        family = find_family(name)
        chunks = layers // pp if family.chunked else np.full_like(pp, family.chunks)
        load = split.of(family)
        seconds = pipeline_expectation(
            name, pp=pp, chunks=chunks, microbatches=microbatches, times=times, load=load
        )
        exists = (pp == 1) | ((chunks >= family.chunks) & (chunks * pp <= layers))
        least = np.minimum(least, np.where(exists, seconds, np.inf))
    return least


def take_variants(variants: Variants, rows: Column) -> Variants:
    """Return the rows at `rows`."""
    return Variants(
        choice=variants.choice[rows],
        schedule=variants.schedule[rows],
        chunks=variants.chunks[rows],
        zero=variants.zero[rows],
    )
