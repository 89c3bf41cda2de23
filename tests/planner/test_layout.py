"""Degrees, batches and the numbering of ranks."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.layout import Coordinates, Layout, RankOrder, check_layout
from profiles.documents import validate
from profiles.errors import FieldError
from profiles.model import ModelSpec

SHAPE = {
    "layers": 6,
    "hidden": 64,
    "heads": 8,
    "kv_heads": 4,
    "vocab": 256,
    "seq_len": 32,
    "position": "rope",
}

degrees = st.integers(1, 6)


@given(tp=degrees, dp=degrees, pp=degrees, order=st.sampled_from(get_args(RankOrder)))
def test_every_rank_has_its_own_place(tp: int, dp: int, pp: int, order: RankOrder) -> None:
    layout = Layout(tp=tp, dp=dp, pp=pp, global_batch=dp, rank_order=order)
    places = [layout.coordinates(rank) for rank in range(layout.world_size)]
    assert len(set(places)) == tp * dp * pp
    assert [layout.rank(place) for place in places] == list(range(layout.world_size))


def test_the_default_order_is_tp_fastest_then_dp_then_pp() -> None:
    layout = Layout(tp=2, dp=3, pp=4, global_batch=3)
    place = Coordinates(tp=1, dp=2, pp=3)
    assert layout.rank(place) == 1 + 2 * (2 + 3 * 3)
    assert (layout.stride("tp"), layout.stride("dp"), layout.stride("pp")) == (1, 2, 6)


@given(tp=degrees, dp=degrees, pp=degrees, order=st.sampled_from(get_args(RankOrder)))
def test_stride_is_the_distance_between_neighbours(tp: int, dp: int, pp: int, order: RankOrder) -> None:
    layout = Layout(tp=tp, dp=dp, pp=pp, global_batch=dp, rank_order=order)
    if pp > 1:
        here, there = Coordinates(tp=0, dp=0, pp=0), Coordinates(tp=0, dp=0, pp=1)
        assert layout.rank(there) - layout.rank(here) == layout.stride("pp")


@pytest.mark.parametrize(
    ("fields", "path", "hint"),
    [
        ({"dp": 3, "global_batch": 8}, ("global_batch",), "use 6"),
        ({"dp": 2, "microbatch": 3, "global_batch": 8}, ("global_batch",), "use 6"),
        ({"pp": 2, "global_batch": 8, "layers_per_stage": [6]}, ("layers_per_stage",), "2 stages"),
        ({"pp": 2, "global_batch": 8, "recompute": ["full"]}, ("recompute",), "2 stages"),
        ({"tp": 0, "global_batch": 8}, ("tp",), "greater than 0"),
        ({"zero": 4, "global_batch": 8}, ("zero",), "0, 1, 2 or 3"),
        ({"precision": "fp7", "global_batch": 8}, ("precision",), "bf16"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_at_its_field(
    fields: dict[str, object], path: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(FieldError) as caught:
        validate(Layout, fields)
    assert caught.value.path == path
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("fields", "path", "hint"),
    [
        ({"tp": 3}, ("tp",), "3 does not divide 8 heads; use 1, 2 or 4"),
        ({"tp": 8}, ("tp",), "8 does not divide 4 key/value heads; use 1, 2 or 4"),
        ({"pp": 4, "chunks": 2}, ("pp",), "use at most 6"),
        ({"pp": 2, "layers_per_stage": [3, 4]}, ("layers_per_stage",), "sums to 7"),
        ({"tp": 4, "sequence_parallel": True}, ("sequence_parallel",), "does not divide seq_len = 30"),
    ],
)
def test_a_layout_that_does_not_fit_the_model_says_what_would(
    fields: dict[str, object], path: tuple[str, ...], hint: str
) -> None:
    model = validate(ModelSpec, SHAPE | {"seq_len": 30})
    layout = validate(Layout, fields | {"global_batch": 8})
    with pytest.raises(FieldError) as caught:
        check_layout(layout, model)
    assert caught.value.path == path
    assert hint in caught.value.message
