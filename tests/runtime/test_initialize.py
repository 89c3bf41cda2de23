"""Initial weights: the same for every layout, and of the intended spread."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.model import ModelSpec
from runtime.initialize import initial_parameter
from runtime.models import build_stage
from runtime.tensor_parallel import TensorParallel

SPEC = ModelSpec(layers=4, hidden=32, heads=4, vocab=50, seq_len=8)


def build(layers: range, *, rank=0, size=1, seed=1, dtype=torch.float32, spec=SPEC):
    return build_stage(
        spec,
        layers=layers,
        first=layers.start == 0,
        last=layers.stop == spec.layers,
        tp=TensorParallel(rank=rank, size=size),
        seed=seed,
        dtype=dtype,
        device=torch.device("cpu"),
    )


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 3))
def test_any_layout_starts_from_the_same_model(tp, cuts, seed):
    whole = dict(build(range(4), seed=seed).named_parameters())
    bounds = [0, *sorted(cuts), 4]
    seen = set()
    for start, stop in pairwise(bounds):
        for rank in range(tp):
            stage = build(range(start, stop), rank=rank, size=tp, seed=seed)
            for name, parameter in stage.named_parameters():
                expected = stage.shards()[name].local(whole[name], TensorParallel(rank=rank, size=tp))
                assert torch.equal(parameter, expected), name
                seen.add(name)
    assert seen == whole.keys()


def test_seed_and_name_both_matter():
    one, other = dict(build(range(4)).named_parameters()), dict(build(range(4), seed=2).named_parameters())
    matrices = [name for name, parameter in one.items() if parameter.dim() == 2]
    digests = {hashlib.sha256(one[name].detach().numpy().tobytes()).digest() for name in matrices}
    assert len(digests) == len(matrices)
    assert not any(torch.equal(one[name], other[name]) for name in matrices)


def test_precision_does_not_change_the_start():
    single, double = build(range(4)), build(range(4), dtype=torch.float64)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("embedding.token.weight", 0.02),
        ("embedding.position.weight", 0.02),
        ("head.output.weight", 0.02),
        ("blocks.0.attention.query.weight", 0.02),
        ("blocks.0.mlp.up.weight", 0.02),
        ("blocks.0.attention.output.weight", 0.02 / math.sqrt(8)),
        ("blocks.0.mlp.down.weight", 0.02 / math.sqrt(8)),
    ],
)
def test_spread(name, deviation):
    values = initial_parameter(SPEC, name, (400, 500), seed=0)
    assert values.std().item() == pytest.approx(deviation, rel=0.01)
    assert abs(values.mean().item()) < deviation / 100


def test_norms_start_as_identities():
    stage = build(range(4))
    for name, parameter in stage.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.full_like(parameter, name.endswith("norm.weight"))), name


def test_a_stage_holds_nothing_of_other_stages():
    names = [name for name, _ in build(range(1, 2)).named_parameters()]
    assert names
    assert all(name.startswith("blocks.1.") for name in names)
    assert not any(parameter.is_meta for parameter in build(range(1, 2)).parameters())


def test_shards_own_their_memory():
    stage = build(range(4), rank=1, size=4)
    for parameter in stage.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.is_contiguous()
