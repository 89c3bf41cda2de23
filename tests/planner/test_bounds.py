"""Depths and loads in closed form, against the schedules and the splits themselves."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.assemble import even_split
from planner.bounds import depth, loads
from planner.columns import LayerTimes, Part
from planner.schedules import FAMILIES, build, peak_activations
from planner.schedules.family import Family
from profiles.errors import ConfigError


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.flush], ids=lambda family: family.name)
def test_depth_is_never_more_than_the_schedule_holds(family: Family) -> None:
    for ranks in (2, 3, 4, 6, 8):
        for microbatches in (1, 2, ranks, 2 * ranks + 1, 4 * ranks):
            for chunks in (family.chunks, 3) if family.chunked else (family.chunks,):
                try:
                    schedule = build(family.name, ranks=ranks, microbatches=microbatches, chunks=chunks)
                except ConfigError:
                    continue
                held = peak_activations(schedule)
                for rank in (0, ranks - 1):
                    bound = depth(
                        family.name,
                        rank=np.array([rank]),
                        pp=np.array([ranks]),
                        chunks=np.array([chunks]),
                        microbatches=np.array([microbatches]),
                    )
                    assert bound[0] <= held[rank] + 1e-9, (ranks, microbatches, chunks, rank)


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved-1f1b", "looped-bfs"])
def test_depth_is_exact_for_the_usual_families(name: str) -> None:
    for ranks, microbatches in ((2, 8), (4, 16), (8, 24)):
        chunks = 2 if name in {"interleaved-1f1b", "looped-bfs"} else 1
        held = peak_activations(build(name, ranks=ranks, microbatches=microbatches, chunks=chunks))
        found = depth(
            name,
            rank=np.arange(ranks),
            pp=np.full(ranks, ranks),
            chunks=np.full(ranks, chunks),
            microbatches=np.full(ranks, microbatches),
        )
        assert found == pytest.approx(held)


def times(block: float, first: float, last: float) -> LayerTimes:
    def part(seconds: float) -> Part:
        value = np.array([seconds / 2])
        return Part(forward=value, backward=value, weight_gradient=value / 2, hiding=value)

    return LayerTimes(
        block=part(block),
        first=part(first),
        last=part(last),
        first_alone=part(first),
        last_alone=part(last),
        hop=np.zeros(1),
        known=np.ones(1, dtype=bool),
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.floats(0.1, 3), st.floats(0, 9), st.floats(0, 9))
@example(pp=2, layers=5, block=0.375, first=1.0, last=1e-9)
def test_slowest_rank_in_closed_form_is_that_of_the_split(
    pp: int, layers: int, block: float, first: float, last: float
) -> None:
    pp = min(pp, layers)
    load = loads(layers, np.array([pp]), times(block, first, last))
    extra = [0.0] * pp
    extra[0] += first
    extra[-1] += last
    counts = even_split(layers, block, extra)
    assert sum(counts) == layers
    slowest = max(n * block + more for n, more in zip(counts, extra, strict=True))
    assert load.slowest[0] == pytest.approx(slowest, rel=1e-6)
    if pp > 1:
        assert load.first_layers[0] <= counts[0] and load.last_layers[0] <= counts[-1]
        assert load.most[0] >= max(counts)
