"""Generated schedules: valid, within memory, and given up as soon as they must be too long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedules import StageTimes, check, loop_placement, simulate, v_placement
from planner.schedules.automatic.generate import Policy, generate
from planner.schedules.memory import peak_stage_activations


@settings(max_examples=60)
@given(data=st.data())
def test_any_policy_gives_a_schedule_that_keeps_its_limits(data: st.DataObject) -> None:
    ranks, chunks = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2))
    placement = data.draw(st.sampled_from([loop_placement(ranks, chunks), v_placement(ranks, chunks)]))
    seconds = st.lists(st.floats(0.1, 3.0), min_size=ranks * chunks, max_size=ranks * chunks).map(tuple)
    times = StageTimes(
        forward=data.draw(seconds), input_gradient=data.draw(seconds), weight_gradient=data.draw(seconds)
    )
    policy = Policy(
        split=data.draw(st.booleans()),
        forward_first=data.draw(st.booleans()),
        deep_first=data.draw(st.booleans()),
        patience=data.draw(st.sampled_from((0.0, 0.5, 1.0))),
        noise=data.draw(st.sampled_from((0.0, 0.5))),
    )
    microbatches = data.draw(st.integers(1, 6))
    limits = [data.draw(st.integers(chunks, 3 * chunks)) for _ in range(ranks)]

    def made(within: float = float("inf")):
        return generate(
            name="made",
            microbatches=microbatches,
            placement=placement,
            times=times,
            limits=limits,
            policy=policy,
            within=within,
        )

    schedule = made()
    assert schedule is not None
    check(schedule)
    assert all(held <= limit for held, limit in zip(peak_stage_activations(schedule), limits, strict=True))
    cycle = simulate(schedule, times).cycle
    assert made(cycle * (1 + 1e-9)) == schedule
    assert made(cycle * (1 - 1e-6)) is None
