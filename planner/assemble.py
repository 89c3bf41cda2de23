"""A candidate of the search → a complete layout: how many layers and what recomputation each stage gets."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.bounds import depth
from planner.columns import LayoutColumns, choice_columns, mode_times
from planner.costs import stage_layers
from planner.frontier import Candidate
from planner.layout import Layout, Recompute
from planner.mixed import most_layers, ranks_of
from planner.partition import balance, spread
from planner.rank_bounds import Pricing, fits, rank_bytes
from planner.schedules.action import loop_placement, v_placement
from planner.schedules.families import find_family
from planner.space import RECOMPUTES, Space


def assemble(space: Space, pricing: Pricing, candidate: Candidate) -> Layout | None:
    """Return the candidate's layout with balanced layers, or None when its layers fit no split."""
    layout = space.layout(candidate.choices, candidate.variants, candidate.row)
    placement = placement_of(layout)
    if candidate.mixed:
        return _mixed(space, pricing, candidate, layout, placement)
    if layout.pp == 1:
        return layout
    times = candidate.times.take(np.array([candidate.choice]))
    extra = np.zeros(layout.pp)
    extra[placement[0]] += times.first.both[0]
    extra[placement[-1]] += times.last.both[0]
    counts = even_split(space.model.layers, float(times.block.both[0]), extra.tolist())
    return _with_layers(space, layout, spread(counts, placement))


def placement_of(layout: Layout) -> tuple[int, ...]:
    """Return which rank holds which stage."""
    family = find_family(layout.schedule)
    build = v_placement if family.placement == "v" else loop_placement
    return build(layout.pp, layout.chunks)


def even_split(layers: int, block: float, extra: Sequence[float]) -> tuple[int, ...]:
    """Return the layers of ranks that take `extra[r]` + n · `block` seconds: least slowest, then most even.

    Among ranks alike the later ones take the remainder, since they hold fewer microbatches.
    """
    ranks = len(extra)
    candidates = sorted({more + n * block for more in set(extra) for n in range(layers + 1)})

    def room(slowest: float) -> list[int]:
        return [
            int((slowest - more) / block * (1 + 1e-12) + 1e-9) if slowest >= more else -1 for more in extra
        ]

    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        most = room(candidates[middle])
        enough = min(most) >= 0 and sum(most) >= layers
        low, high = (low, middle) if enough else (middle + 1, high)
    most = room(candidates[low])
    base = layers // ranks
    counts = [min(most[rank], base) for rank in range(ranks)]
    order = [(counts[rank], (ranks - 2 - rank) % ranks, rank) for rank in range(ranks)]
    heapq.heapify(order)
    for _ in range(layers - sum(counts)):
        count, place, rank = heapq.heappop(order)
        while count >= most[rank]:
            count, place, rank = heapq.heappop(order)
        counts[rank] = count + 1
        heapq.heappush(order, (count + 1, place, rank))
    return tuple(counts)


def may_fit(pricing: Pricing, layout: Layout) -> bool:
    """Whether every rank may fit its device, now that its layers are known; cheaper than a price."""
    placement = placement_of(layout)
    layers = stage_layers(pricing.model, layout)
    ranks = np.arange(layout.pp)
    ones = np.ones(layout.pp, dtype=np.int64)
    columns = LayoutColumns(
        tp=ones * layout.tp,
        pp=ones * layout.pp,
        dp=ones * layout.dp,
        microbatch=ones * layout.microbatch,
        sequence_parallel=ones * layout.sequence_parallel > 0,
        zero=ones * layout.zero,
        rank_order=ones * 0,
        orders=(layout.rank_order,),
        precision=layout.precision,
    )
    held = np.bincount(placement, weights=layers, minlength=layout.pp)
    # Where a rank recomputes some of its stages only, the leaner way is counted for all of them.
    modes = np.array(["none"] * layout.pp, dtype="<U9")
    for stage, rank in enumerate(placement):
        if layers[stage]:
            modes[rank] = max(str(modes[rank]), layout.recompute_of(stage), key=LEAN.index)
    in_flight = depth(
        layout.schedule,
        rank=ranks,
        pp=columns.pp,
        chunks=ones * layout.chunks,
        microbatches=ones * layout.microbatches,
    )
    first, last = (ranks == placement[0]) * 1.0, (ranks == placement[-1]) * 1.0
    total = rank_bytes(pricing, columns, modes).total(layers=held, depth=in_flight, first=first, last=last)
    return bool(fits(pricing, total).all())


LEAN = ("none", "selective", "full")  # ever less kept


def _mixed(
    space: Space, pricing: Pricing, candidate: Candidate, layout: Layout, placement: tuple[int, ...]
) -> Layout | None:
    choices = candidate.choices.take(np.array([candidate.choice]))
    columns = replace(choice_columns(space, choices), zero=np.array([layout.zero]))
    ranks = ranks_of(
        (layout.schedule,),
        np.array([0]),
        pp=columns.pp,
        chunks=np.array([layout.chunks]),
        microbatches=np.array([layout.microbatches]),
    )
    most = most_layers(pricing, columns, ranks)[:, 0]
    times = mode_times(space, choices, pricing.software, pricing.costs, range(len(RECOMPUTES)))
    extra = ranks.first[0] * times[0].first.both[0] + ranks.last[0] * times[0].last.both[0]
    layers = np.arange(space.model.layers + 1)
    seconds = np.stack([extra[:, None] + layers * t.block.both[0] for t in times])
    seconds = np.where(layers <= most[:, :, None], seconds, np.inf)
    counts = balance(seconds.min(axis=0), space.model.layers)
    if counts is None:
        return None
    best = seconds.argmin(axis=0)
    modes: list[Recompute] = [RECOMPUTES[best[rank, count]] for rank, count in enumerate(counts)]
    per_stage = tuple(modes[rank] for rank in placement)
    chosen: Recompute | tuple[Recompute, ...] = per_stage if len(set(modes)) > 1 else modes[0]
    layout = layout.model_copy(update={"recompute": chosen})
    return _with_layers(space, layout, spread(counts, placement))


def _with_layers(space: Space, layout: Layout, layers: tuple[int, ...]) -> Layout:
    """Write the layers out only where they are not the usual even split."""
    if layers == stage_layers(space.model, layout):
        return layout
    return layout.model_copy(update={"layers_per_stage": layers})
