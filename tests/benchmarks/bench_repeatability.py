"""Two measurements of the same shapes, one after the other: how far apart are they?

    python tests/benchmarks/bench_repeatability.py --ranks 2 --seconds 40
    python tests/benchmarks/bench_repeatability.py --tables first.yaml second.yaml

Method: the same request twice, each from scratch; per shape |second / first − 1| of the medians, and of the
means, by which steps are priced. Prints the median and the 90th percentile over all shapes, over layers and
over collectives, by wall and by processor time. Other work on the machine shows as wall times further apart
than processor times. With `--slices` the two are measured in turn, a slice of each: what is left then is the
measurement's own error, without the machine's wandering.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from cost_slices import averaged

from planner.bench import load_costs, measure
from planner.probe import probe
from profiles.costs import CollectiveCost, CostTable, LayerCost, shape_of
from profiles.model import ModelSpec

MODEL = ModelSpec(name="repeat", layers=4, hidden=256, heads=4, vocab=256, seq_len=128)
Cost = LayerCost | CollectiveCost


def main() -> None:
    """Measure twice, or read two tables, and print how far apart they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--slices", type=int, default=1, help="measure in so many slices, in turn")
    parser.add_argument("--tables", type=Path, nargs=2, help="compare these instead of measuring")
    options = parser.parse_args()
    if options.tables:
        first, second = (load_costs(path) for path in options.tables)
    else:
        cluster = probe(ranks=options.ranks)
        seconds = options.seconds / options.slices
        tables = [
            measure(MODEL, ranks=options.ranks, seconds=seconds, cluster=cluster)
            for _ in range(2 * options.slices)
        ]
        first, second = averaged(tables[0::2]), averaged(tables[1::2])
    for name, costs in (("all shapes", shapes), ("layers", layers), ("collectives", collectives)):
        for clock in ("seconds", "mean_seconds", "cpu_seconds"):
            apart = sorted(differences(costs(first), costs(second), clock))
            if apart:
                high = apart[int(0.9 * len(apart))]
                middle = f"median {statistics.median(apart):6.1%}   90th percentile {high:6.1%}"
                print(f"{name:12} {clock:12} {middle}   of {len(apart)} shapes")


def shapes(costs: CostTable) -> dict[object, Cost]:
    """Return every entry by its shape."""
    return layers(costs) | collectives(costs)


def layers(costs: CostTable) -> dict[object, Cost]:
    """Return the layer times by shape."""
    return {shape_of(cost): cost for cost in costs.layers}


def collectives(costs: CostTable) -> dict[object, Cost]:
    """Return the collectives by shape."""
    return {shape_of(cost): cost for cost in costs.collectives}


def differences(first: dict[object, Cost], second: dict[object, Cost], clock: str) -> list[float]:
    """Return the relative distance of every shape that both have."""
    read: Callable[[Cost], float | None] = lambda cost: getattr(cost, clock)  # noqa: E731
    return [
        abs(b / a - 1)
        for key in first.keys() & second.keys()
        if (a := read(first[key])) and (b := read(second[key]))
    ]


if __name__ == "__main__":
    main()
