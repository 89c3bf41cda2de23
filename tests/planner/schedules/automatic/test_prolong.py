"""A prolonged schedule is the one that the family itself builds for as many microbatches."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedules import Action, Kind, StageTimes, build, check, peak_activations, simulate
from planner.schedules.automatic import auto
from planner.schedules.automatic.problem import Problem
from planner.schedules.automatic.prolong import prolong, short_enough, steady_rise

PERIODIC = ("1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe-v")


def chunks_of(name: str) -> int:
    return 2 if name in {"zb-v", "v-half", "v-min", "dualpipe-v"} else 1


@pytest.mark.parametrize("name", PERIODIC)
@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
@pytest.mark.parametrize("more", [12, 36])
def test_it_is_what_the_family_builds(name: str, ranks: int, more: int) -> None:
    few = 5 * ranks + 1
    short = build(name, ranks=ranks, microbatches=few, chunks=chunks_of(name))
    long = build(name, ranks=ranks, microbatches=few + more, chunks=chunks_of(name))
    prolonged = prolong(short, few + more)
    assert prolonged is not None
    assert prolonged.actions == long.actions
    assert (prolonged.name, prolonged.placement) == (long.name, long.placement)


@pytest.mark.parametrize(("name", "chunks"), [("gpipe", 1), ("looped-bfs", 2)])
def test_without_rounds_there_is_nothing_to_repeat(name: str, chunks: int) -> None:
    assert prolong(build(name, ranks=4, microbatches=12, chunks=chunks), 24) is None


def test_a_round_that_differs_is_not_repeated() -> None:
    short = build("1f1b", ranks=2, microbatches=5)
    row = list(short.actions[1])
    at = row.index(Action(Kind.F, 1, 4))
    row[at - 1 : at + 1] = row[at], row[at - 1]  # one F earlier than in the rounds before
    assert prolong(replace(short, actions=(short.actions[0], tuple(row))), 17) is None


@pytest.mark.parametrize("name", PERIODIC)
@pytest.mark.parametrize("uneven", [False, True])
def test_the_rise_foretells_a_longer_timeline(name: str, uneven: bool) -> None:
    ranks, chunks = 4, chunks_of(name)
    few, more = 12 * ranks, 48
    short = build(name, ranks=ranks, microbatches=few, chunks=chunks)
    stages = range(ranks * chunks)
    slow = [1.0 + (0.25 * stage if uneven else 0.0) for stage in stages]
    times = StageTimes(
        forward=tuple(slow),
        backward=tuple(2.25 * each for each in slow),
        input_gradient=tuple(1.25 * each for each in slow),
        weight_gradient=tuple(slow),
        latency=0.125,
        wire=(0.0,) * (len(stages) - 1),
    )
    timeline = simulate(short, times)
    rise = steady_rise(timeline, 12)
    assert rise is not None
    long = simulate(build(name, ranks=ranks, microbatches=few + more, chunks=chunks), times)
    for span, longer in zip(timeline.spans, long.spans, strict=True):
        assert longer == pytest.approx(span + rise * more / 12, rel=1e-12)


def test_a_warm_up_is_not_steady() -> None:
    short = build("1f1b", ranks=4, microbatches=3)
    assert steady_rise(simulate(short, StageTimes.uniform(stages=4)), 1) is None


@given(ranks=st.integers(1, 70), microbatches=st.integers(1, 5000))
def test_the_short_one_is_a_common_number_of_rounds_away(ranks: int, microbatches: int) -> None:
    short = short_enough(ranks, microbatches)
    assert 1 <= short <= microbatches
    assert (microbatches - short) % 12 == 0
    assert short < 3 * ranks + 12 or short == microbatches


def test_large_problems_get_complete_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("planner.schedules.automatic.auto"), "_LARGE", 1000)
    ranks, microbatches = 4, 240

    def times(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(
            stages=len(placement),
            chunks=len(placement) // ranks,
            forward=1.0,
            input_gradient=1.2,
            weight_gradient=0.8,
        )

    found = auto(Problem(ranks=ranks, microbatches=microbatches, times_of=times, memory_limit=3))
    check(found)
    assert max(peak_activations(found)) <= 3
    named = build("v-half", ranks=ranks, microbatches=microbatches, chunks=2)
    assert max(peak_activations(named)) <= 3
    cycles = [simulate(each, times(each.placement)).cycle for each in (found, named)]
    assert cycles[0] <= cycles[1] * (1 + 1e-9)


def test_what_fits_with_few_microbatches_alone_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("planner.schedules.automatic.auto"), "_LARGE", 100)
    ranks, limit = 8, 13  # zb-h2 holds 12 of 12 microbatches, but 15 of many

    def times(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(stages=len(placement))

    found = auto(Problem(ranks=ranks, microbatches=120, times_of=times, chunks=1, memory_limit=limit))
    check(found)
    assert max(peak_activations(found)) <= limit
    named = build("zb-h1", ranks=ranks, microbatches=120)
    assert simulate(found, times(found.placement)).cycle <= simulate(named, times(named.placement)).cycle
