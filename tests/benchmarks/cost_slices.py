"""One cost table from several short measurements of the same request, spread over time.

The speed of a shared machine wanders. What is measured in slices between other measurements meets the same
machine as they do. The mean over slices is what the machine gave; the least is what it gives when nobody else
uses it, for what others do can only add time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from profiles.costs import CollectiveCost, CostTable, LayerCost, shape_of

Cost = TypeVar("Cost", LayerCost, CollectiveCost)
Statistic = Callable[[Iterable[float]], float]
TIMES = ("seconds", "spread_seconds", "mean_seconds", "cpu_seconds", "busy_seconds")


def averaged(tables: Sequence[CostTable]) -> CostTable:
    """Return the mean of every entry over the tables that have it."""
    return joined(tables, statistics.fmean)


def fastest(tables: Sequence[CostTable]) -> CostTable:
    """Return the least of every entry over the tables that have it."""
    return joined(tables, min)


def joined(tables: Sequence[CostTable], statistic: Statistic) -> CostTable:
    """Return what `statistic` makes of every entry over the tables that have it."""
    first = tables[0]
    optimizer = [table.optimizer_seconds_per_parameter for table in tables]
    return first.model_copy(
        update={
            "layers": tuple(_entries([table.layers for table in tables], statistic)),
            "collectives": tuple(_entries([table.collectives for table in tables], statistic)),
            "optimizer_seconds_per_parameter": statistic(each for each in optimizer if each),
        }
    )


def _entries(columns: Sequence[Sequence[Cost]], statistic: Statistic) -> Iterator[Cost]:
    alike: dict[tuple[object, ...], list[Cost]] = {}
    for column in columns:
        for cost in column:
            alike.setdefault(shape_of(cost), []).append(cost)
    for costs in alike.values():
        times = {
            name: statistic(getattr(cost, name) for cost in costs)
            for name in TIMES
            if all(getattr(cost, name, None) is not None for cost in costs)
        }
        yield costs[0].model_copy(update=times)
