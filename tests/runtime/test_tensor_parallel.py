"""Tensor parallel against one rank: losses, every gradient, and the number of messages."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.model import ModelSpec
from runtime.models import build_stage
from runtime.tensor_parallel import ShardSpec, TensorParallel, sum_partial_gradients

SPECS = {
    "gpt2": ModelSpec(layers=2, hidden=32, heads=4, vocab=50, seq_len=12),
    "gpt2-untied": ModelSpec(layers=2, hidden=32, heads=4, vocab=50, seq_len=12, tied_embeddings=False),
    "llama": ModelSpec(
        layers=2,
        hidden=32,
        heads=8,
        kv_heads=4,
        ffn_hidden=44,
        vocab=50,
        seq_len=12,
        position="rope",
        norm="rmsnorm",
        gated_mlp=True,
        tied_embeddings=False,
    ),
    "few-tokens": ModelSpec(layers=1, hidden=16, heads=4, vocab=5, seq_len=12),  # the last of 4 ranks: no row
}


def world() -> TensorParallel:
    return TensorParallel(group=dist.group.WORLD, rank=dist.get_rank(), size=dist.get_world_size())


def build(spec: ModelSpec, tp: TensorParallel, **options):
    return build_stage(
        spec,
        layers=range(spec.layers),
        first=True,
        last=True,
        tp=tp,
        seed=3,
        dtype=torch.float64,
        device=torch.device("cpu"),
        **options,
    )


def sample(spec: ModelSpec) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    tokens, targets = torch.randint(0, spec.vocab, (2, 3, spec.seq_len), generator=generator)
    targets[1, 4:] = -100
    return tokens, targets


def run(spec: ModelSpec, deferred: bool = False, **options):
    stage = build(spec, world(), **options)
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            full = torch.randn(stage.shards()[name].shape, generator=torch.Generator().manual_seed(len(name)))
            parameter.add_(stage.shards()[name].local(full, world()).double(), alpha=0.1)
    tokens, targets = sample(spec)
    loss = stage(tokens, targets)
    if deferred:
        with stage.deferred.collecting(0):
            loss.backward()
        stage.deferred.run(0)
    else:
        loss.backward()
    sum_partial_gradients(dict(stage.named_parameters()), stage.shards(), world())
    return loss.item(), {n: (stage.shards()[n], p.detach(), p.grad) for n, p in stage.named_parameters()}


@pytest.mark.parametrize("name", SPECS)
def test_losses_and_gradients_equal_those_of_one_rank(run_ranks, name):
    spec = SPECS[name]
    ((expected, whole),) = run_ranks(1, run, spec)
    for ranks, deferred in ((2, False), (4, True)):
        for rank, (loss, parameters) in enumerate(run_ranks(ranks, run, spec, deferred)):
            assert loss == pytest.approx(expected, rel=1e-13)
            tp = TensorParallel(rank=rank, size=ranks)
            assert parameters.keys() == whole.keys()
            for parameter, (shard, value, gradient) in parameters.items():
                full_shard, full_value, full_gradient = whole[parameter]
                assert shard.shape == full_shard.shape == full_value.shape
                assert torch.equal(value, shard.local(full_value, tp))
                wanted = shard.local(full_gradient, tp)
                torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-12, msg=parameter)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_sequence_parallel_equals_one_rank(run_ranks, name, recompute):
    spec = SPECS[name]
    ((expected, whole),) = run_ranks(1, run, spec)
    parallel = partial(run, spec, recompute == "full", sequence_parallel=True, recompute=recompute)
    for rank, (loss, parameters) in enumerate(run_ranks(4, parallel)):
        assert loss == pytest.approx(expected, rel=1e-13)
        for parameter, (shard, _, gradient) in parameters.items():
            assert shard.partial == (shard.dim is None)
            wanted = shard.local(whole[parameter][2], TensorParallel(rank=rank, size=4))
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-12, msg=parameter)


def test_sequence_parallel_stages_exchange_their_positions_only(run_ranks):
    def shape() -> tuple[int, ...]:
        spec = SPECS["gpt2"]
        stage = build_stage(
            spec,
            layers=range(1),
            first=True,
            last=False,
            tp=world(),
            seed=1,
            dtype=torch.float64,
            device=torch.device("cpu"),
            sequence_parallel=True,
        )
        return tuple(stage(sample(spec)[0]).shape)

    assert run_ranks(2, shape) == [(3, 6, 32)] * 2


def test_sequence_parallel_keeps_a_share_of_every_activation(run_ranks):
    def kept() -> int:
        stage = build_stage(
            SPECS["llama"],
            layers=range(2),
            first=False,
            last=False,
            tp=world(),
            seed=1,
            dtype=torch.float64,
            device=torch.device("cpu"),
            sequence_parallel=True,
        )
        positions = 12 // dist.get_world_size()
        hidden = torch.randn(1, positions, 32, dtype=torch.float64, requires_grad=True)
        weights = {parameter.data_ptr() for parameter in stage.parameters()}
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            stage(hidden)
        return sum(storages.values())

    (whole,) = run_ranks(1, kept)
    assert [4 * share for share in run_ranks(4, kept)] == [whole] * 4


def test_a_half_costs_one_reduction_each_way(run_ranks):
    def count(layers: int) -> tuple[int, int]:
        spec = SPECS["llama"].model_copy(update={"layers": layers})
        stage = build(spec, world())
        calls = 0
        original = dist.all_reduce

        def counting(*args, **kwargs):
            nonlocal calls
            calls += 1
            return original(*args, **kwargs)

        dist.all_reduce = counting
        try:
            loss = stage(*sample(spec))
            forward = calls
            loss.backward()
        finally:
            dist.all_reduce = original
        return forward, calls - forward

    (one, two) = (run_ranks(2, count, layers)[0] for layers in (1, 2))
    assert (two[0] - one[0], two[1] - one[1]) == (2, 2)  # two halves a block
    assert one == (2 + 2, 2 + 1)  # embedding and loss forward, head backward


def test_weights_are_really_split(run_ranks):
    def sizes() -> tuple[int, int]:
        stage = build(SPECS["llama"], world())
        split = sum(p.numel() for n, p in stage.named_parameters() if stage.shards()[n].dim is not None)
        return split, sum(p.numel() for n, p in stage.named_parameters() if stage.shards()[n].dim is None)

    spec = SPECS["llama"]
    norms = (2 * spec.layers + 1) * spec.norm_parameters
    for split, whole in run_ranks(2, sizes):
        assert (split, whole) == ((spec.parameters - norms) // 2, norms)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 16))
def test_slices_cover_without_overlap(length, size):
    parts = [TensorParallel(rank=rank, size=size).slice(length) for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(length))
    assert max(map(len, parts)) == math.ceil(length / size)
    chunks = torch.arange(length).chunk(size) if length else ()
    assert [len(part) for part in parts if len(part)] == [len(chunk) for chunk in chunks]


def test_shard_spec_takes_our_slice():
    full = torch.arange(12).reshape(4, 3)
    tp = TensorParallel(rank=1, size=2)
    assert ShardSpec(dim=None, shape=(4, 3)).local(full, tp) is full
    assert ShardSpec(dim=0, shape=(4, 3)).local(full, tp).tolist() == [[6, 7, 8], [9, 10, 11]]
    assert ShardSpec(dim=1, shape=(4, 3)).local(full, tp).tolist() == [[2], [5], [8], [11]]
