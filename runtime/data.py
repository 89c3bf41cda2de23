"""Which sequence of the corpus stands where in which global batch.

The order depends on the seed alone, never on the layout: global sequence number

    n = step · global_batch + index in the batch

is sample π(n mod N) of epoch n div N, where N is the number of samples and π a permutation keyed by seed and
epoch. π is a Feistel network, which gives any one element without the others, so a run resumes at any step
at no cost, and every sample comes exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from profiles.corpus import VOCABULARY, Tokens, trained_on
from profiles.errors import ConfigError

_ROUNDS = 6


class Samples:
    """Fixed-length samples of a corpus in a seeded order: sample i predicts bytes i·seq + 1 … (i+1)·seq.

    Args:
        tokens: the corpus; see `profiles.corpus.load_corpus`.
        seq_len: tokens of one sample.
        global_batch: sequences of one step.
        seed: of the order; None keeps the order of the text.
        vocab: vocabulary of the model.

    Raises:
        ConfigError: when the corpus is shorter than one sample or the vocabulary has fewer than 256 tokens.
    """

    def __init__(
        self, tokens: Tokens, *, seq_len: int, global_batch: int, seed: int | None, vocab: int = VOCABULARY
    ) -> None:
        check_enough(tokens, seq_len=seq_len, vocab=vocab)
        self.count = (len(tokens) - 1) // seq_len
        self.tokens, self.seq_len, self.global_batch, self.seed = tokens, seq_len, global_batch, seed

    def order(self, step: int, sequences: Sequence[int]) -> list[int]:
        """Return the sample numbers of the given sequences of the global batch of `step`."""
        result = []
        for index in sequences:
            if not 0 <= index < self.global_batch:
                raise IndexError(f"sequence {index} of a global batch of {self.global_batch}")
            epoch, position = divmod(step * self.global_batch + index, self.count)
            result.append(
                position if self.seed is None else permuted(position, self.count, (self.seed, epoch))
            )
        return result

    def batch(self, step: int, sequences: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens and targets, both int64 [sequences, seq_len].

        Args:
            step: counted from 0 over the whole run.
            sequences: indices in the global batch; all of it when None.
        """
        wanted = range(self.global_batch) if sequences is None else sequences
        rows = np.empty((len(wanted), self.seq_len + 1), dtype=np.int64)
        for row, sample in zip(rows, self.order(step, wanted), strict=True):
            start = sample * self.seq_len
            row[:] = self.tokens[start : start + self.seq_len + 1]
        return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())


def check_enough(tokens: Tokens, *, seq_len: int, vocab: int) -> None:
    """Refuse a corpus shorter than one sample, and a vocabulary that has no number for some byte.

    Raises:
        ConfigError: saying how much is needed.
    """
    if len(tokens) <= seq_len:
        raise ConfigError(
            f"data: {len(tokens)} bytes of text are too few for one sequence of {seq_len} + 1;"
            " give more text or a smaller seq_len"
        )
    if vocab < VOCABULARY:
        raise ConfigError(f"model.vocab: {vocab} is too small for text read as bytes; use {VOCABULARY}")


def split_holdout(tokens: Tokens, share: float) -> tuple[Tokens, Tokens]:
    """Split a corpus into its start, to train on, and its last `share`, to evaluate on."""
    cut = trained_on(len(tokens), share)
    return tokens[:cut], tokens[cut:]


def permuted(position: int, count: int, key: tuple[int, ...]) -> int:
    """Return element `position` of a permutation of 0 … count − 1 that `key` selects.

    A balanced Feistel network permutes the next power of four; positions that land outside are sent through
    again until they land inside (cycle walking, Black & Rogaway 2002), at most four times on average.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    state = _mix(0, *key)
    while True:
        left, right = position >> half, position & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix(state, number, right) & mask)
        position = left << half | right
        if position < count:
            return position


def _mix(state: int, *numbers: int) -> int:
    """Hash integers into 64 bits with the finaliser of SplitMix64 (Steele et al. 2014)."""
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state
