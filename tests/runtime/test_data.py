"""Sample order: every sample once an epoch, the same for every layout, any step at once."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.errors import ConfigError
from runtime.data import Samples, permuted, split_holdout


def samples(count: int, *, seq_len=4, global_batch=3, seed: int | None = 1) -> Samples:
    tokens = np.arange(count * seq_len + 1).astype(np.uint8)
    return Samples(tokens, seq_len=seq_len, global_batch=global_batch, seed=seed)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 50))
def test_permutation_hits_everything_once(count, seed, epoch):
    assert sorted(permuted(i, count, (seed, epoch)) for i in range(count)) == list(range(count))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_each_sample_comes_once_an_epoch(count, global_batch, seed):
    data = samples(count, global_batch=global_batch, seed=seed)
    seen = [n for step in range(3 * count) for n in data.order(step, range(global_batch))]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_order_does_not_depend_on_who_asks(data):
    dp = data.draw(st.sampled_from([1, 2, 4]))
    microbatches = data.draw(st.sampled_from([1, 2, 3]))
    source = samples(50, global_batch=12 * dp * microbatches)
    step = data.draw(st.integers(0, 1000))
    whole, whole_targets = source.batch(step)
    rows = torch.arange(source.global_batch).reshape(dp, microbatches, -1)
    for part in rows.flatten(0, 1):
        tokens, targets = source.batch(step, part.tolist())
        assert torch.equal(tokens, whole[part])
        assert torch.equal(targets, whole_targets[part])


def test_targets_are_the_next_bytes_and_samples_tile_the_text():
    data = samples(5, global_batch=5, seed=None)
    tokens, targets = data.batch(0)
    assert tokens.dtype == targets.dtype == torch.int64
    assert tokens.flatten().tolist() == list(range(20))
    assert targets.flatten().tolist() == list(range(1, 21))


def test_seeds_and_epochs_differ_and_are_well_mixed():
    orders = {
        tuple(permuted(i, 500, (seed, epoch)) for i in range(500)) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25
    firsts = Counter(permuted(0, 10, (seed, 0)) for seed in range(5000))
    statistic = sum((firsts[i] - 500) ** 2 / 500 for i in range(10))
    assert statistic < 27.9  # chi-square, 9 degrees of freedom, 1 in 1,000
    pairs = Counter((permuted(0, 4, (seed, 3)), permuted(1, 4, (seed, 3))) for seed in range(6000))
    assert len(pairs) == 12
    assert sum((n - 500) ** 2 / 500 for n in pairs.values()) < 31.3  # 11 degrees of freedom


def test_a_late_step_of_a_large_corpus_costs_no_more_than_the_first():
    data = Samples(np.broadcast_to(np.uint8(7), 10**12), seq_len=1024, global_batch=8, seed=1)
    start = time.process_time()
    tokens, _ = data.batch(10**9)
    assert tokens.shape == (8, 1024)
    assert time.process_time() - start < 1.0  # walking there would take hours


def test_too_short_corpus_and_too_small_vocabulary_are_refused():
    text = np.zeros(16, dtype=np.uint8)
    with pytest.raises(ConfigError, match=r"16 bytes .* too few for one sequence of 16 \+ 1"):
        Samples(text, seq_len=16, global_batch=1, seed=1)
    with pytest.raises(ConfigError, match="vocab"):
        Samples(text, seq_len=4, global_batch=1, seed=1, vocab=255)
    with pytest.raises(IndexError):
        samples(5).order(0, [3])


def test_holdout_is_the_end_of_the_text():
    text = np.arange(100, dtype=np.uint8)
    train, held = split_holdout(text, 0.1)
    assert train.tolist() + held.tolist() == text.tolist()
    assert len(held) == 10
    assert len(split_holdout(text, 0.0)[1]) == 0
