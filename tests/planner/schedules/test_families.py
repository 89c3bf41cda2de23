"""Figures that the papers give, pinned in whole stage times; and every family runs for any numbers."""

import pytest

from planner.schedules import (
    FAMILIES,
    Kind,
    Schedule,
    ScheduleError,
    StageTimes,
    Timeline,
    build,
    check,
    find_family,
    peak_stage_activations,
    simulate,
    steady_cycle,
    weight_versions,
)

RANKS = (1, 2, 3, 4, 5, 7, 8, 12)


def unit(schedule: Schedule) -> Timeline:
    """Every F, I and W of a stage takes one unit, so all figures are whole numbers."""
    return simulate(schedule, StageTimes.uniform(stages=schedule.stages))


def numbers(p: int) -> list[int]:
    return sorted({1, 2, p - 1, p, p + 1, 2 * p - 1, 2 * p, 2 * p + 3, 4 * p} - {0})


@pytest.mark.parametrize("p", RANKS)
def test_plain_families(p: int) -> None:
    for m in numbers(p):
        assert unit(build("naive", ranks=p, microbatches=m)).cycle == 3 * m * p
        gpipe, one_f_one_b = (unit(build(name, ranks=p, microbatches=m)) for name in ("gpipe", "1f1b"))
        assert gpipe.cycle == one_f_one_b.cycle == 3 * (m + p - 1)
        assert gpipe.peak_activations == (m,) * p
        assert one_f_one_b.peak_activations == tuple(min(m, p - rank) for rank in range(p))


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("v", [1, 2, 3, 4])
def test_interleaving_divides_the_bubble(p: int, v: int) -> None:
    for m in (m for m in numbers(p) if m >= p):
        looped, interleaved = (
            unit(build(name, ranks=p, microbatches=m, chunks=v))
            for name in ("looped-bfs", "interleaved-1f1b")
        )
        # In units of a stage the bubble (p − 1)(F + B) / v of a rank is (p − 1) · 3, whatever m.
        assert looped.cycle == interleaved.cycle == 3 * m * v + 3 * (p - 1)
        assert max(peak_stage_activations(looped.schedule)) == m * v
        if m % p == 0 and v > 1:
            held = min(m * v, 2 * (p - 1) + (v - 1) * p + 1)
            assert max(peak_stage_activations(interleaved.schedule)) == held


@pytest.mark.parametrize("p", RANKS)
def test_zero_bubble_on_a_line(p: int) -> None:
    for m in numbers(p):
        h1, h2 = (unit(build(name, ranks=p, microbatches=m)) for name in ("zb-h1", "zb-h2"))
        if m >= p:
            assert (h1.cycle, max(h1.peak_activations)) == (3 * m + p - 1, p)
        if m >= 2 * p - 1:
            assert (h2.cycle, max(h2.peak_activations)) == (3 * m, 2 * p - 1)


@pytest.mark.parametrize(("f", "i", "w"), [(1, 1, 1), (2, 3, 2), (4, 5, 3), (3, 3, 1)])
def test_zb_h1_has_the_published_bubble_for_other_durations(f: int, i: int, w: int) -> None:
    for p in (2, 4, 6):
        times = StageTimes.uniform(stages=p, forward=f, input_gradient=i, weight_gradient=w)
        timeline = simulate(build("zb-h1", ranks=p, microbatches=3 * p), times)
        assert timeline.cycle == 3 * p * (f + i + w) + (p - 1) * (f + i - w)


@pytest.mark.parametrize("p", RANKS)
def test_v_shaped_families(p: int) -> None:
    for m in (2 * p, 2 * p + 3, 4 * p):
        found = {
            name: unit(build(name, ranks=p, microbatches=m))
            for name in ("zb-v", "v-half", "v-min", "dualpipe-v")
        }
        bubble = {name: timeline.cycle - 6 * m for name, timeline in found.items()}
        peak = {name: max(peak_stage_activations(t.schedule)) for name, t in found.items()}
        # In halves of a rank: two stages, so 1F1B's bubble is 6(p − 1) and its memory 2p.
        assert (bubble["zb-v"], peak["zb-v"]) == (0, 2 * p)
        assert (bubble["dualpipe-v"], peak["dualpipe-v"]) == (p - 1, 2 * p + 1)
        assert bubble["v-half"] <= 3 * (p - 1) and peak["v-half"] == 2 * (p // 2 + 1)
        assert bubble["v-min"] <= 4 * (p - 1) and peak["v-min"] == 2 * ((p + 4) // 3)
        if p > 2:
            assert bubble["v-half"] == 3 * p - (4 if p % 2 else 5)
            assert bubble["v-min"] == 4 * p - 5


@pytest.mark.parametrize("p", RANKS)
def test_asynchronous_families_keep_few_versions_and_never_flush(p: int) -> None:
    for m in numbers(p):
        for steps in (1, 3):
            pipedream = build("pipedream", ranks=p, microbatches=m, steps=steps)
            assert all(kept <= p - rank for rank, kept in enumerate(weight_versions(pipedream)))
            if m * steps >= 2 * p:
                assert weight_versions(pipedream) == tuple(p - rank for rank in range(p))
            updates = [action for action in pipedream.actions[0] if action.kind == Kind.U]
            assert len(updates) == m * steps
            if m >= max(p - 1, 1):
                two = build("pipedream-2bw", ranks=p, microbatches=m, steps=steps)
                assert max(weight_versions(two)) <= 2
                assert sum(action.kind == Kind.U for action in two.actions[0]) == steps
        for name in ("pipedream", "pipedream-2bw"):
            if name == "pipedream" or m >= p:
                times = StageTimes.uniform(stages=p)
                assert steady_cycle(name, ranks=p, microbatches=m, times=times) == 3 * m


def test_2bw_delays_every_stage_by_one_step() -> None:
    schedule = build("pipedream-2bw", ranks=4, microbatches=4, steps=4)
    expected = (0,) * 4 + (0,) * 4 + (1,) * 4 + (2,) * 4
    assert schedule.forward_versions == (expected,) * 4


def test_2bw_says_how_many_microbatches_it_needs() -> None:
    with pytest.raises(ScheduleError, match=r"at least 7 microbatches per update, not 4"):
        build("pipedream-2bw", ranks=8, microbatches=4)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("p", range(1, 9))
def test_every_family_is_proved_for_any_numbers(family: object, p: int) -> None:
    family = find_family(getattr(family, "name", ""))
    for m in (1, 2, 3, 5, 8, 13, 16):
        for v in (1, 2, 3) if family.chunked else (family.chunks,):
            try:
                schedule = build(family.name, ranks=p, microbatches=m, chunks=v)
            except ScheduleError:
                assert family.name == "pipedream-2bw" and m < p - 1
                continue
            check(schedule)
            assert schedule.ranks == p and schedule.chunks == v and schedule.microbatches == m


@pytest.mark.parametrize(
    ("name", "numbers_given", "says"),
    [
        ("1f1b", {"chunks": 2}, "use chunks = 1, or one of interleaved-1f1b, looped-bfs"),
        ("zb-v", {"chunks": 1}, "use chunks = 2"),
        ("1f1b", {"ranks": 0}, "ranks = 0: must be at least 1"),
        ("1f1b", {"steps": 2}, "ends every step with a flush"),
        ("zbv", {}, "did you mean 'zb-v'"),
        ("nothing", {}, "use one of naive, gpipe"),
    ],
)
def test_what_cannot_be_built_says_what_would(name: str, numbers_given: dict[str, int], says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        build(name, **{"ranks": 4, "microbatches": 8, **numbers_given})
