"""Expected pipeline times against the simulated schedules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.assemble import even_split
from planner.columns import LayerTimes, Part
from planner.expect import pipeline_expectation
from planner.loads import splits
from planner.partition import spread
from planner.schedules import build, loop_placement, simulate, v_placement
from planner.schedules.families import find_family
from planner.schedules.times import StageTimes

Cells = tuple[float, float, float]

# How far an expectation may be off, in all cases drawn.
ERRORS = {
    "1f1b": 0.01,
    "gpipe": 0.01,
    "zb-h1": 0.025,
    "zb-h2": 0.025,
    "interleaved-1f1b": 0.01,
    "zb-v": 0.03,
    "dualpipe-v": 0.03,
    "v-half": 0.06,
    "v-min": 0.06,
}


def part(cells: Cells) -> Part:
    forward, gradient, weight = (np.array([seconds]) for seconds in cells)
    return Part(forward=forward, backward=gradient + weight, weight_gradient=weight, hiding=gradient + weight)


def layer_times(block: Cells, last: Cells, hop: float) -> LayerTimes:
    none = part((0.0, 0.0, 0.0))
    return LayerTimes(
        block=part(block),
        first=none,
        last=part(last),
        first_alone=none,
        last_alone=part(last),
        hop=np.array([hop]),
        known=np.array([True]),
    )


def stage_times(layers: tuple[int, ...], block: Cells, last: Cells, hop: float) -> StageTimes:
    forward, gradient, weight = ([count * seconds for count in layers] for seconds in block)
    for row, seconds in zip((forward, gradient, weight), last, strict=True):
        row[-1] += seconds
    return StageTimes(
        forward=tuple(forward),
        input_gradient=tuple(gradient),
        weight_gradient=tuple(weight),
        wire=(hop,) * (len(layers) - 1),
    )


@pytest.mark.parametrize("name", ERRORS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ranks=st.sampled_from([4, 6, 8, 12]),
    rounds=st.integers(4, 8),
    block=st.tuples(st.just(1.0), st.floats(0.9, 1.2), st.floats(0.8, 1.1)),
    head=st.floats(0.0, 0.9),
    hop=st.sampled_from([0.0, 0.02, 0.05]),
)
def test_a_full_pipeline_takes_what_is_expected(
    name: str, *, ranks: int, rounds: int, block: Cells, head: float, hop: float
) -> None:
    family = find_family(name)
    folded = family.placement == "v"
    chunks, microbatches = family.chunks, rounds * ranks
    layers, last = 2 * chunks * ranks, (head, head, head)
    placement = (v_placement if folded else loop_placement)(ranks, chunks)
    extra = [0.0] * ranks
    extra[placement[-1]] = sum(last)
    counts = even_split(layers, sum(block), extra)
    seconds = simulate(
        build(name, ranks=ranks, microbatches=microbatches, chunks=chunks),
        stage_times(spread(counts, placement), block, last, hop),
    ).makespan
    times, pp = layer_times(block, last, hop), np.array([ranks])
    expected = pipeline_expectation(
        name,
        pp=pp,
        chunks=np.array([chunks]),
        microbatches=np.array([microbatches]),
        times=times,
        load=splits(layers, pp, times).of(family),
    )
    assert float(expected[0]) == pytest.approx(seconds, rel=ERRORS[name])
