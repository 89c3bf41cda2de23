"""Bounds, expectations and fit of complete layouts, schedule by schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.bounds import depth, pipeline_bound
from planner.columns import LayerTimes, LayoutColumns, Seconds, choice_columns
from planner.expect import pipeline_expectation
from planner.loads import Loads, Splits
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
    bounds = np.full(len(variants), np.inf)
    expected = np.full(len(variants), np.inf)
    possible = np.zeros(len(variants), dtype=bool)
    columns = choice_columns(space, choices)
    waiting = 1.0 + waiting_share(pricing, columns.world_size)
    microbatches = space.skeletons.microbatches[choices.skeleton]
    loose = split.loosened(choices.recompute == MIXED)
    for number, name in enumerate(space.schedules):
        family = find_family(name)
        load = loose.of(family)
        own = np.flatnonzero(variants.schedule == number)
        some = take_variants(variants, own)
        own = own[
            _may_fit(pricing, columns, choices, name, variants=some, load=load, microbatches=microbatches)
        ]
        possible[own] = True
        rows, chunks = variants.choice[own], variants.chunks[own]
        picked = replace(columns.take(rows), zero=variants.zero[own])
        m, own_times, own_load = microbatches[rows], times.take(rows), load.take(rows)
        whole = family.placement == "loop" and not family.split
        shared: dict[str, Any] = {"pp": picked.pp, "chunks": chunks, "microbatches": m, "times": own_times}
        line = pipeline_bound(name, load=own_load, **shared)
        probable = pipeline_expectation(name, load=split.of(family).take(rows), **shared)
        after, later = (
            after_pipeline(
                pricing, picked, own_times, own_load, microbatches=m, first_ends_last=whole, likely=likely
            )
            for likely in (False, True)
        )
        slower = waiting[rows] if np.ndim(waiting) else waiting
        bounds[own] = line * slower + after
        expected[own] = np.maximum(line, probable) * slower + np.maximum(after, later)
    return bounds, expected, possible


def _may_fit(
    pricing: Pricing,
    columns: LayoutColumns,
    choices: Choices,
    name: str,
    *,
    variants: Variants,
    load: Loads,
    microbatches: Column,
) -> NDArray[np.bool_]:
    """Whether variants of one schedule may fit their device."""
    rows, chunks = variants.choice, variants.chunks
    picked = replace(columns.take(rows), zero=variants.zero)
    m = microbatches[rows]
    depths = (
        depth(name, rank=np.zeros_like(m), pp=picked.pp, chunks=chunks, microbatches=m),
        depth(name, rank=picked.pp - 1, pp=picked.pp, chunks=chunks, microbatches=m),
    )
    folded = find_family(name).placement != "loop"
    lean = LEANEST[choices.recompute[rows]]
    return fits(pricing, memory_bound(pricing, picked, depths, lean, load.take(rows), folded=folded))


def take_variants(variants: Variants, rows: Column) -> Variants:
    """Return the rows at `rows`."""
    return Variants(
        choice=variants.choice[rows],
        schedule=variants.schedule[rows],
        chunks=variants.chunks[rows],
        zero=variants.zero[rows],
    )
