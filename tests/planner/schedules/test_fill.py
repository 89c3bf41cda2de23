"""Weight gradients in a given order of F and I: every W, within memory, given up when it must be too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedules import Action, Kind, StageTimes, build, check, simulate
from planner.schedules.fill import fill_weights
from planner.schedules.memory import peak_stage_activations


def orders_of(name: str, ranks: int, microbatches: int) -> tuple[tuple[int, ...], list[list[Action]]]:
    """Placement, and the F and I of a family with a split backward."""
    schedule = build(name, ranks=ranks, microbatches=microbatches)
    rows = [[action for action in row if action.kind in {Kind.F, Kind.I}] for row in schedule.actions]
    return schedule.placement, rows


@settings(max_examples=60)
@given(data=st.data())
def test_every_weight_gradient_is_put_in_within_memory(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(("v-half", "v-min", "zb-v")))
    ranks, microbatches = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 8))
    placement, orders = orders_of(name, ranks, microbatches)
    seconds = st.lists(st.floats(0.1, 3.0), min_size=len(placement), max_size=len(placement)).map(tuple)
    times = StageTimes(
        forward=data.draw(seconds), input_gradient=data.draw(seconds), weight_gradient=data.draw(seconds)
    )
    limit = data.draw(st.integers(2 * ranks, 4 * ranks))

    def filled(within: float = float("inf")):
        return fill_weights(
            orders,
            name=name,
            microbatches=microbatches,
            placement=placement,
            times=times,
            limits=[limit] * ranks,
            within=within,
        )

    schedule = filled()
    assert schedule is not None
    check(schedule)
    assert max(peak_stage_activations(schedule)) <= limit
    cycle = simulate(schedule, times).cycle
    assert filled(cycle * (1 + 1e-9)) == schedule
    assert filled(cycle * (1 - 1e-6)) is None


@pytest.mark.parametrize("ranks", [2, 4, 6])
def test_the_more_memory_the_later_the_weights(ranks: int) -> None:
    placement, orders = orders_of("zb-v", ranks, 4 * ranks)
    times = StageTimes.uniform(stages=len(placement))
    cycles = []
    for limit in (2 * ranks, 4 * ranks):
        schedule = fill_weights(
            orders,
            name="filled",
            microbatches=4 * ranks,
            placement=placement,
            times=times,
            limits=[limit] * ranks,
        )
        assert schedule is not None
        cycles.append(simulate(schedule, times).cycle)
    assert cycles[1] <= cycles[0]
