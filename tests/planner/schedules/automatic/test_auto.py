"""auto against every family, against the optimum that an exact solver proves, and against its own limits."""

import os
import random
from collections.abc import Sequence

import pytest

from planner.schedules import (
    FAMILIES,
    Kind,
    ScheduleError,
    StageTimes,
    build,
    check,
    loop_placement,
    peak_activations,
    simulate,
)
from planner.schedules.automatic import Problem, auto
from profiles.errors import InfeasibleError

# A sample that is larger in CI; CUBOID_CASES=1000 runs the full set, which takes a few minutes.
RANDOM_CASES = int(os.environ.get("CUBOID_CASES") or (120 if os.environ.get("CI") else 40))
EXACT_CASES = 12 if os.environ.get("CI") else 6


def random_problem(seed: int) -> tuple[Problem, StageTimes]:
    chance = random.Random(seed)
    p, m, v = chance.randint(1, 6), chance.randint(1, 9), chance.choice((1, 1, 2, 3))
    spread = chance.choice((1.0, 1.5, 4.0))

    def row() -> tuple[float, ...]:
        return tuple(chance.uniform(1.0, spread) for _ in range(p * v))

    times = StageTimes(
        forward=row(),
        input_gradient=row(),
        weight_gradient=row() if chance.random() < 0.8 else (0.0,) * (p * v),
        latency=chance.choice((0.0, 0.0, 0.2, 1.0)),
    )
    limit = chance.choice((None, None, 1.0, chance.uniform(1.0, 1.5 * p)))
    return Problem(ranks=p, microbatches=m, times_of=lambda _: times, chunks=v, memory_limit=limit), times


@pytest.mark.parametrize("block", range(10))
def test_never_worse_than_the_best_family_that_fits(block: int) -> None:
    for seed in range(block, RANDOM_CASES, 10):
        problem, times = random_problem(seed)
        found = auto(problem, effort=1_000)
        check(found)
        cycle = simulate(found, times).cycle
        most = problem.memory_limit or problem.microbatches
        assert max(peak_activations(found)) <= most + 1e-9
        for family in FAMILIES:
            if not family.flush:
                continue
            try:
                named = build(
                    family.name,
                    ranks=problem.ranks,
                    microbatches=problem.microbatches,
                    chunks=problem.chunks,
                )
            except ScheduleError:
                continue
            if max(peak_activations(named)) <= most + 1e-9:
                assert cycle <= simulate(named, times).cycle * (1 + 1e-9), (seed, family.name)


def least_cycle(
    placement: Sequence[int], microbatches: int, times: StageTimes, held: int
) -> tuple[float, float]:
    """The least cycle that CP-SAT finds over all orders, and its proved lower bound; integer times only.

    A rank's first action starts as soon as it can, as in the simulator: a later start would only shorten its
    own span. Forwards of a stage run in the order of the microbatches, which are alike.
    """
    cp_model = pytest.importorskip("ortools.sat.python.cp_model")
    model = cp_model.CpModel()
    stages, ranks = len(placement), max(placement) + 1
    rows = {kind: [round(x) for x in times.table[kind]] for kind in (Kind.F, Kind.I, Kind.W)}
    latency = round(times.latency)
    horizon = microbatches * sum(map(sum, rows.values())) + 2 * stages * latency * microbatches
    cells = [(s, i) for s in range(stages) for i in range(microbatches)]
    start = {(k, s, i): model.new_int_var(0, horizon, "") for k in rows for s, i in cells}

    def after(later: tuple[Kind, int, int], sooner: tuple[Kind, int, int]) -> None:
        travel = latency if placement[later[1]] != placement[sooner[1]] else 0
        model.add(start[later] >= start[sooner] + rows[sooner[0]][sooner[1]] + travel)

    for s, i in cells:
        after((Kind.I, s, i), (Kind.F, s, i))
        after((Kind.W, s, i), (Kind.I, s, i))
        if s:
            after((Kind.F, s, i), (Kind.F, s - 1, i))
            after((Kind.I, s - 1, i), (Kind.I, s, i))
        if i:
            after((Kind.F, s, i), (Kind.F, s, i - 1))
    cycle = model.new_int_var(0, horizon, "")
    for rank in range(ranks):
        own = [(s, i) for s, i in cells if placement[s] == rank]
        begin = sum(rows[Kind.F][s] + latency for s in range(rank))
        model.add(start[Kind.F, rank, 0] == begin)
        model.add_no_overlap(
            [model.new_fixed_size_interval_var(start[k, s, i], rows[k][s], "") for k in rows for s, i in own]
        )
        lives = []
        for s, i in own:
            end = start[Kind.W, s, i] + rows[Kind.W][s]
            model.add(end - begin <= cycle)
            length = model.new_int_var(0, horizon, "")
            lives.append(model.new_interval_var(start[Kind.F, s, i], length, end, ""))
        model.add_cumulative(lives, [1] * len(lives), held)
    model.minimize(cycle)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = 20.0, 2
    solver.solve(model)
    return solver.objective_value, solver.best_objective_bound


@pytest.mark.parametrize("seed", range(EXACT_CASES))
def test_within_one_percent_of_the_proved_optimum(seed: int) -> None:
    chance = random.Random(seed)
    p, m = chance.choice([(2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (4, 2)])
    v = chance.choice((1, 1, 2)) if p * m <= 6 else 1
    most = chance.choice((1, 3, 9))
    rows = [tuple(float(chance.randint(1, most)) for _ in range(p * v)) for _ in range(3)]
    times = StageTimes(
        forward=rows[0],
        input_gradient=rows[1],
        weight_gradient=rows[2],
        latency=float(chance.choice((0, 1))),
    )
    limit = chance.choice((None, 1, 2))
    problem = Problem(ranks=p, microbatches=m, times_of=lambda _: times, chunks=v, memory_limit=limit)
    found = simulate(auto(problem), times).cycle
    held = v * min(m, limit or m)
    proved = min(least_cycle(placement, m, times, held)[1] for placement in problem.placements())
    assert found <= proved * 1.01 + 1e-9


def test_uniform_stages_without_a_limit_have_no_bubble() -> None:
    problem = Problem(
        ranks=8,
        microbatches=32,
        times_of=lambda placement: StageTimes.uniform(stages=len(placement)),
        chunks=1,
    )
    assert simulate(auto(problem), StageTimes.uniform(stages=8)).cycle == 3 * 32


def test_less_memory_than_v_half_at_its_bubble_or_less() -> None:
    def times_of(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(stages=len(placement), chunks=len(placement) // 4)

    for limit, named in [(2, "v-min"), (3, "v-half"), (4, "zb-v")]:
        found = auto(Problem(ranks=4, microbatches=8, times_of=times_of, memory_limit=limit))
        family = build(named, ranks=4, microbatches=8)
        assert max(peak_activations(found)) <= limit
        cycles = [simulate(schedule, times_of(schedule.placement)).cycle for schedule in (found, family)]
        assert cycles[0] <= cycles[1]


def test_a_large_problem_falls_back_to_fewer_microbatches_and_still_beats_the_families() -> None:
    times = StageTimes(
        forward=tuple(1.0 + 0.3 * (s % 3) for s in range(12)),
        input_gradient=tuple(1.2 - 0.1 * (s % 2) for s in range(12)),
        weight_gradient=(0.8,) * 12,
    )
    problem = Problem(ranks=12, microbatches=1200, times_of=lambda _: times, chunks=1, memory_limit=8)
    found = auto(problem)
    assert max(peak_activations(found)) <= 8
    for name in ("naive",):
        named = build(name, ranks=12, microbatches=1200)
        assert simulate(found, times).cycle <= simulate(named, times).cycle


def test_less_than_one_microbatch_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="every rank must hold at least 1"):
        auto(
            Problem(
                ranks=2,
                microbatches=2,
                times_of=lambda p: StageTimes.uniform(stages=len(p)),
                memory_limit=0.5,
            )
        )


def test_by_name_it_is_built_for_equal_times() -> None:
    schedule = build("auto", ranks=4, microbatches=8)
    check(schedule)
    assert schedule.name == "auto" and schedule.placement == loop_placement(4)
