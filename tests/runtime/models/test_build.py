"""What cannot be built is refused at the field to change, before anything is made or sent."""

from __future__ import annotations

import pytest
import torch

from profiles.errors import FieldError
from profiles.model import ModelSpec
from runtime.models import build_stage
from runtime.tensor_parallel import TensorParallel

SPEC = {"layers": 1, "hidden": 24, "heads": 4, "vocab": 61, "seq_len": 9}


@pytest.mark.parametrize(
    ("change", "size", "options", "path", "reason"),
    [
        ({}, 3, {}, ("tp",), "3 does not divide 4 heads"),
        ({"kv_heads": 2}, 4, {}, ("tp",), "4 does not divide 2 key/value heads"),
        ({"ffn_hidden": 50}, 4, {}, ("tp",), "4 does not divide ffn_hidden = 50"),
        ({}, 2, {"sequence_parallel": True}, ("sequence_parallel",), "does not divide seq_len = 9"),
    ],
)
def test_indivisible_degrees(change, size, options, path, reason):
    with pytest.raises(FieldError, match=reason) as caught:
        build_stage(
            ModelSpec(**(SPEC | change)),
            layers=range(1),
            first=True,
            last=True,
            tp=TensorParallel(rank=1, size=size),
            seed=1,
            dtype=torch.float32,
            device=torch.device("cpu"),
            **options,
        )
    assert caught.value.path == path
