"""One cost table from several short measurements of the same request, spread over time.

The speed of a shared machine wanders. What is measured in slices between other measurements meets the same
machine as they do.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TypeVar

from profiles.costs import CollectiveCost, CostTable, LayerCost, shape_of

Cost = TypeVar("Cost", LayerCost, CollectiveCost)
TIMES = ("seconds", "spread_seconds", "mean_seconds", "cpu_seconds")


def averaged(tables: Sequence[CostTable]) -> CostTable:
    """Return the mean of every entry over the tables that have it."""
    first = tables[0]
    optimizer = [table.optimizer_seconds_per_parameter for table in tables]
    return first.model_copy(
        update={
            "layers": tuple(_means([table.layers for table in tables])),
            "collectives": tuple(_means([table.collectives for table in tables])),
            "optimizer_seconds_per_parameter": statistics.fmean(each for each in optimizer if each),
        }
    )


def _means(columns: Sequence[Sequence[Cost]]) -> Iterator[Cost]:
    alike: dict[tuple[object, ...], list[Cost]] = {}
    for column in columns:
        for cost in column:
            alike.setdefault(shape_of(cost), []).append(cost)
    for costs in alike.values():
        means = {
            name: statistics.fmean(getattr(cost, name) for cost in costs)
            for name in TIMES
            if all(getattr(cost, name) is not None for cost in costs)
        }
        yield costs[0].model_copy(update=means)
