"""The split of layers over ranks, against trying every split."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.partition import balance, spread


def every_split(layers: int, ranks: int) -> list[tuple[int, ...]]:
    return [c for c in itertools.product(range(layers + 1), repeat=ranks) if sum(c) == layers]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slowest_rank_and_total_are_those_of_brute_force(data: st.DataObject) -> None:
    ranks, layers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    cell = st.one_of(st.integers(1, 9).map(float), st.just(np.inf))
    seconds = np.array([[data.draw(cell) for _ in range(layers + 1)] for _ in range(ranks)])
    found = balance(seconds, layers)
    costs = {
        split: (
            max(seconds[r, n] for r, n in enumerate(split)),
            sum(seconds[r, n] for r, n in enumerate(split)),
        )
        for split in every_split(layers, ranks)
    }
    best = min(costs.values())
    if np.isinf(best[0]):
        assert found is None
    else:
        assert found is not None and costs[found] == best


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_halving_finds_what_the_programme_finds(data: st.DataObject) -> None:
    ranks, layers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    cell = st.one_of(st.integers(1, 9).map(float), st.just(np.inf))
    rows = [sorted(data.draw(cell) for _ in range(layers + 1)) for _ in range(ranks)]
    seconds = np.array(rows)
    best = min(max(seconds[r, n] for r, n in enumerate(split)) for split in every_split(layers, ranks))
    found = balance(seconds, layers)
    if np.isinf(best):
        assert found is None
    else:
        assert found is not None
        assert max(seconds[r, n] for r, n in enumerate(found)) == best


def test_heavy_ends_get_fewer_layers() -> None:
    n = np.arange(13.0)
    seconds = np.stack([n, n, n, n + 2.0])
    assert balance(seconds, 12) == (4, 3, 3, 2) or balance(seconds, 12) == (3, 4, 3, 2)


def test_equal_ranks_get_equal_layers() -> None:
    seconds = np.tile(np.arange(97.0), (8, 1))
    assert balance(seconds, 96) == (12,) * 8


def test_memory_limit_moves_layers_away() -> None:
    seconds = np.tile(np.arange(9.0), (2, 1))
    seconds[0, 4:] = np.inf
    assert balance(seconds, 8) == (3, 5)


def test_stages_of_a_rank_share_its_layers_and_the_ends_are_lighter() -> None:
    assert spread((4, 4), (0, 1, 0, 1)) == (2, 2, 2, 2)
    assert spread((3, 3), (0, 1, 0, 1)) == (1, 2, 2, 1)
    assert spread((3, 4), (0, 1, 1, 0)) == (2, 2, 2, 1)
