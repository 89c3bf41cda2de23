"""The checker: right schedules pass, every single wrong cell is refused and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from planner.schedules import FAMILIES, Action, Kind, Schedule, ScheduleError, ScheduleRefused, build, check

F, B, I, W = Kind.F, Kind.B, Kind.I, Kind.W  # noqa: E741


def schedule(*ranks: str, microbatches: int, placement: tuple[int, ...] | None = None) -> Schedule:
    """Write a schedule as one string a rank: `0F0 0F1 0B0 0B1`, each cell stage, kind, microbatch."""
    actions = tuple(tuple(cell(word) for word in row.split()) for row in ranks)
    return Schedule(
        name="by hand",
        microbatches=microbatches,
        placement=placement or tuple(range(len(ranks))),
        actions=actions,
    )


def cell(word: str) -> Action:
    kind = next(letter for letter in word if letter.isalpha())
    stage, microbatch = word.split(kind)
    return Action(Kind[kind], int(stage), int(microbatch))


GOOD = ("0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1")


def test_the_good_one_passes() -> None:
    check(schedule(*GOOD, microbatches=2))


# Accepted by validators that count with sets.
FOUR_BAD = [
    (("0F0 0F1 0F1 0B0 0B1", GOOD[1]), "0F1", 0, 2),
    (("0F0 0F1 0B0 0B0 0B1", GOOD[1]), "0B0", 0, 3),
    (("0F0 0F1 0B0 0B0", GOOD[1]), "0B0", 0, 3),
    (("0F0 0F2 0B0 0B2", GOOD[1]), "0F2", 0, 1),
]


@pytest.mark.parametrize(("rows", "named", "rank", "position"), FOUR_BAD)
def test_the_four_bad_schedules_are_refused_with_the_cell_named(
    rows: tuple[str, ...], named: str, rank: int, position: int
) -> None:
    with pytest.raises(ScheduleRefused) as caught:
        check(schedule(*rows, microbatches=2))
    assert (caught.value.rank, caught.value.position) == (rank, position)
    assert caught.value.cell == cell(named)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        (("0B0 0F0 0F1 0B1", GOOD[1]), "order"),
        (("0F0 0F1 0B0", GOOD[1]), "count"),
        (("0F0 0F1 0B0 0B1 1F0", "1B0 1F1 1B1"), "ownership"),
        (("0F0 0F1 0I0 0B0 0B1", GOOD[1]), "count"),
        (("0F0 0F1 0W0 0I0 0B1", GOOD[1]), "order"),
        (("0F0 0F1 0I0 0B1", GOOD[1]), "count"),
        (("0F0 0B0 0F1 0B1", "1F1 1B1 1F0 1B0"), "deadlock"),
    ],
)
def test_each_rule_refuses(rows: tuple[str, ...], rule: str) -> None:
    with pytest.raises(ScheduleRefused) as caught:
        check(schedule(*rows, microbatches=2))
    assert caught.value.rule == rule


def mutations(right: Schedule) -> Iterator[tuple[str, Schedule]]:
    """Every deletion, duplication, change of one number or kind, move to another rank, and every swap of two
    cells of which one needs the other."""
    for rank, row in enumerate(right.actions):
        for at, old in enumerate(row):
            before, after = row[:at], row[at + 1 :]
            yield f"delete {old}", with_row(right, rank, (*before, *after))
            yield f"double {old}", with_row(right, rank, (*before, old, old, *after))
            for new in changed(old, right):
                yield f"{old} becomes {new}", with_row(right, rank, (*before, new, *after))
            for other in range(right.ranks):
                if other != rank:
                    moved = with_row(right, rank, (*before, *after))
                    yield f"move {old}", with_row(moved, other, (*moved.actions[other], old))
            for later in range(at + 1, len(row)):
                if row[later][1:] == old[1:]:
                    swapped = list(row)
                    swapped[at], swapped[later] = row[later], old
                    yield f"swap {old} {row[later]}", with_row(right, rank, tuple(swapped))


def changed(old: Action, right: Schedule) -> Iterator[Action]:
    for stage in (old.stage - 1, old.stage + 1, right.stages):
        yield old._replace(stage=stage)
    for microbatch in (old.microbatch - 1, old.microbatch + 1, right.microbatches, -1):
        yield old._replace(microbatch=microbatch)
    for kind in (F, B, I, W):
        if kind != old.kind:
            yield old._replace(kind=kind)


def with_row(right: Schedule, rank: int, row: tuple[Action, ...]) -> Schedule:
    rows = list(right.actions)
    rows[rank] = row
    return replace(right, actions=tuple(rows))


SYNCHRONOUS = [family.name for family in FAMILIES if family.flush and family.name != "auto"]


@pytest.mark.parametrize("name", SYNCHRONOUS)
@pytest.mark.parametrize(("ranks", "microbatches"), [(2, 2), (3, 4), (4, 4)])
def test_every_single_mutation_is_refused(name: str, ranks: int, microbatches: int) -> None:
    try:
        right = build(name, ranks=ranks, microbatches=microbatches)
    except ScheduleError:
        pytest.skip("the family has no schedule for these numbers")
    check(right)
    count = 0
    for what, wrong in mutations(right):
        count += 1
        with pytest.raises(ScheduleRefused) as caught:
            check(wrong)
            pytest.fail(f"{what} passes")
        assert caught.value.rank is not None, what
        assert caught.value.cell is not None, what
    assert count > 10 * ranks * microbatches


@pytest.mark.parametrize("name", SYNCHRONOUS)
@pytest.mark.parametrize("ranks", range(1, 9))
def test_no_deadlock_with_blocking_sends_and_no_buffers(name: str, ranks: int) -> None:
    """`check` runs the lowered lists under rendezvous; fewer microbatches than ranks included."""
    built = 0
    for microbatches in range(1, 17):
        try:
            right = build(name, ranks=ranks, microbatches=microbatches)
        except ScheduleError as error:
            assert any(letter.isdigit() for letter in str(error)), "a refusal says which numbers would work"
            continue
        check(right)
        built += 1
    assert built > 0
