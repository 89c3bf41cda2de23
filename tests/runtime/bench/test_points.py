"""Points: groups partition the ranks, and everything a plan needs is asked for."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.bench_request import BenchRequest
from profiles.errors import FieldError
from profiles.model import ModelSpec
from runtime.bench.points import CollectivePoint, LayerPoint, message_sizes, optional, points

MODEL = ModelSpec(layers=2, hidden=32, heads=4, vocab=64, seq_len=16)


def request_for(ranks: int, **changes: object) -> BenchRequest:
    fields = {
        "model": MODEL,
        "ranks": ranks,
        "seconds": 1.0,
        "microbatches": (1, 4),
        "tensor_parallel": (1,),
        "seq_len": 16,
    }
    return BenchRequest(**(fields | changes))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_groups_of_a_shape_partition_the_ranks_of_an_axis(size: int, stride: int, outer: int) -> None:
    ranks = size * stride * outer
    point = CollectivePoint(
        operation="all_reduce", ranks=size, groups=ranks // size, stride=stride, message_bytes=4
    )
    groups = {point.members(rank) for rank in range(ranks)}
    assert sorted(rank for group in groups for rank in group) == list(range(ranks))
    for rank in range(ranks):
        members = point.members(rank)
        assert rank in members
        assert {b - a for a, b in pairwise(members)} <= {stride}


def test_a_rank_beyond_the_last_group_is_in_none() -> None:
    point = CollectivePoint(operation="send_recv", ranks=2, groups=1, stride=1, message_bytes=4)
    assert [point.members(rank) for rank in range(3)] == [(0, 1), (0, 1), ()]


def test_every_layer_is_measured_at_every_microbatch_and_degree_before_what_is_optional() -> None:
    todo = points(request_for(4, tensor_parallel=(1, 2, 4)), local_ranks=4)
    layers = {point for point in todo if isinstance(point, LayerPoint)}
    wanted = product(("block", "embedding", "head"), (1, 4), (1, 2, 4))
    assert layers == {LayerPoint(component=c, microbatch=m, tp=t, precision="fp32") for c, m, t in wanted}
    assert len(todo) == len(set(todo))
    flags = [optional(point) for point in todo]
    assert flags == sorted(flags)


def test_variants_are_measured_when_asked_for_and_last() -> None:
    request = request_for(4, tensor_parallel=(1, 2), sequence_parallel=True, recompute=True)
    todo = points(request, local_ranks=4)
    variants = [p for p in todo if isinstance(p, LayerPoint) and optional(p)]
    assert {(p.component, p.tp) for p in variants if p.sequence_parallel} == {
        (component, 2) for component in ("block", "embedding", "head")
    }
    assert {(p.component, p.recompute) for p in variants if not p.sequence_parallel} == {
        ("block", "full"),
        ("block", "selective"),
    }
    assert not any(optional(point) for point in todo[: -len(variants) - 1 - 4 * len(message_sizes(request))])


def test_groups_across_nodes_are_measured_apart() -> None:
    def strides(local_ranks: int) -> set[tuple[int, int]]:
        return {
            (point.ranks, point.stride)
            for point in points(request_for(8), local_ranks=local_ranks)
            if isinstance(point, CollectivePoint) and point.operation == "all_reduce"
        }

    assert strides(8) == {(2, 1), (4, 1), (8, 1)}
    assert strides(4) == {(2, 1), (2, 4), (4, 1), (4, 2), (8, 1)}


def test_message_sizes_reach_the_largest_message_of_the_model() -> None:
    sizes = message_sizes(request_for(2))
    assert sizes[0] == 4096
    assert sizes[-1] == max(4 * 16 * 32 * 4, MODEL.parameters * 4)
    assert message_sizes(request_for(2, message_bytes=(64, 8, 64))) == (8, 64)


def test_one_rank_sends_nothing() -> None:
    assert not [p for p in points(request_for(1), local_ranks=1) if isinstance(p, CollectivePoint)]


@pytest.mark.parametrize(("changes", "where"), [({"tensor_parallel": (3,)}, "3"), ({"seq_len": 17}, "17")])
def test_a_request_that_cannot_be_measured_is_refused(changes: dict[str, object], where: str) -> None:
    with pytest.raises(FieldError, match=where):
        request_for(6, **changes)
