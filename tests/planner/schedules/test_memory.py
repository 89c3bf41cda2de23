"""Peak memory from the order of actions, against a sweep over intervals of the timeline."""

import pytest

from planner.schedules import FAMILIES, Kind, StageTimes, Timeline, build, simulate


def sweep(timeline: Timeline, rank: int) -> int:
    """Most intervals [start of F, end of B or W) that overlap; at equal times ends come first."""
    begin: dict[tuple[int, int], float] = {}
    end: dict[tuple[int, int], float] = {}
    row = zip(timeline.schedule.actions[rank], timeline.starts[rank], timeline.ends[rank], strict=True)
    for action, start, stop in row:
        cell = (action.stage, action.microbatch)
        if action.kind == Kind.F:
            begin[cell] = start
        elif action.kind in (Kind.B, Kind.W):
            end[cell] = stop
    assert begin.keys() == end.keys()
    events = sorted([(time, 1) for time in begin.values()] + [(time, -1) for time in end.values()])
    held = most = 0
    for _, change in events:
        held += change
        most = max(most, held)
    return most


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("uneven", [False, True])
def test_peak_agrees_with_a_sweep_over_intervals(family: object, uneven: bool) -> None:
    name = getattr(family, "name", "")
    for p, m in [(1, 3), (2, 5), (4, 8), (5, 12)]:
        schedule = build(name, ranks=p, microbatches=m)
        row = tuple(1.0 + (0.37 * stage % 1 if uneven else 0.0) for stage in range(schedule.stages))
        times = StageTimes(forward=row, input_gradient=row[::-1], weight_gradient=row)
        timeline = simulate(schedule, times)
        swept = tuple(sweep(timeline, rank) / schedule.chunks for rank in range(p))
        assert timeline.peak_activations == swept
