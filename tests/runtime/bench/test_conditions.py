"""What the notes of a cost table say."""

from __future__ import annotations

import torch

from profiles.bench_request import BenchRequest
from profiles.model import ModelSpec
from runtime.bench.conditions import conditions
from runtime.bench.measured import Measured
from runtime.bench.points import Point, points
from runtime.bench.session import _not_known

REQUEST = BenchRequest(
    model=ModelSpec(layers=2, hidden=32, heads=2, vocab=64, seq_len=16),
    ranks=2,
    seconds=1.0,
    microbatches=(1, 2),
    tensor_parallel=(1, 2),
    seq_len=16,
    sequence_parallel=True,
    recompute=True,
)
CPU = torch.device("cpu")


def test_points_that_were_not_reached_are_named() -> None:
    todo = points(REQUEST, local_ranks=2)
    assert conditions(REQUEST, {}, (), CPU) == ()
    (one,) = conditions(REQUEST, {}, todo[-1:], CPU)
    assert one.startswith("1 point was not reached in the time (computation beside collectives)")
    (many,) = conditions(REQUEST, {}, todo, CPU)
    assert many.startswith(f"{len(todo)} points were not reached in the time (block, microbatch 1, tp 1")


def test_an_asked_for_variant_that_is_known_is_not_called_missing() -> None:
    results: dict[Point, Measured] = {}
    assert conditions(REQUEST, results, (), CPU) == ()


def test_missing_recomputation_is_measured_beside_its_block() -> None:
    """What recomputation adds is a difference, so the block without it is measured again."""
    todo = points(REQUEST, local_ranks=2)
    missing = next(p for p in todo if getattr(p, "recompute", "none") == "full")
    wanted = _not_known(todo, frozenset(todo) - {missing})
    assert [getattr(p, "recompute", None) for p in wanted] == ["none", "full"]
    assert _not_known(todo, frozenset(todo)) == []
