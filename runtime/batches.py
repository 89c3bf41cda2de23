"""This pipeline's share of the global batches, as the executor reads it."""

from __future__ import annotations

import torch

from planner.layout import Layout
from profiles.corpus import Tokens
from profiles.model import ModelSpec
from runtime.data import Samples
from runtime.executor import StepData
from runtime.loss import IGNORED
from runtime.mesh import Mesh


class Batches:
    """The tokens of any steps, for the ranks of this pipeline that read them.

    Args:
        model: gives the sequence length, the vocabulary, and which stages there are.
        layout: how a global batch is cut into pipelines and microbatches.
        mesh: this rank's place.
        stages: the stages of this rank.
        corpus: the text.
        seed: of the order of the samples.
    """

    def __init__(
        self,
        model: ModelSpec,
        layout: Layout,
        *,
        mesh: Mesh,
        stages: frozenset[int],
        corpus: Tokens,
        seed: int,
    ) -> None:
        self._layout = layout
        self._mesh = mesh
        self._first, self._last = 0 in stages, layout.stages - 1 in stages
        self._samples = Samples(
            corpus, seq_len=model.seq_len, global_batch=layout.global_batch, seed=seed, vocab=model.vocab
        )
        share = layout.microbatches * layout.microbatch
        self._sequences = range(mesh.dp.rank * share, (mesh.dp.rank + 1) * share)

    def of(self, steps: range, *, every: int) -> tuple[StepData, list[int]]:
        """Return the data of `steps`, one after the other, and the valid tokens of every update.

        An update takes `every` microbatches of all pipelines; all counts are 0 where no loss is computed. The
        backward of a microbatch starts from 1 / (valid tokens of its update).
        """
        layout, device = self._layout, self._mesh.device
        updates = len(steps) * layout.microbatches // every
        if not self._first and not self._last:
            return StepData(tokens=None, targets=None, valid_tokens=0), [0] * updates
        parts = [self._samples.batch(step, self._sequences) for step in steps]
        tokens, targets = (torch.cat(side) for side in zip(*parts, strict=True))
        shape = (len(steps) * layout.microbatches, layout.microbatch, tokens.shape[-1])
        valid = [0] * updates
        if self._last:
            counts = (targets.view(updates, -1) != IGNORED).sum(1).to(device)
            self._mesh.dp.all_reduce(counts)
            valid = counts.tolist()
        data = StepData(
            tokens=tokens.view(shape).to(device) if self._first else None,
            targets=targets.view(shape).to(device) if self._last else None,
            valid_tokens=valid[0] if updates == 1 else [count for count in valid for _ in range(every)],
        )
        return data, valid
