"""The output head: final norm, projection to the vocabulary, and the loss."""

from __future__ import annotations

from torch import Tensor

from profiles.model import ModelSpec
from runtime.linear import DeferringModule, Entrance, Linear, linear
from runtime.loss import cross_entropy_sum
from runtime.models.norms import build_norm
from runtime.tensor_parallel import TensorParallel


class Head(DeferringModule):
    """Hidden states → logits or the sum of token losses.

    An untied head owns `output`; a tied one is given the token embedding's weight at every call. `enter` is
    where the tensor-parallel region of the vocabulary starts, `first_row` our first row of it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.norm = build_norm(spec)
        self.enter: Entrance | None = None
        self.output = None if spec.tied_embeddings else Linear(spec.hidden, spec.vocab, bias=False)
        self.tp = TensorParallel()
        self.first_row = 0

    def forward(self, hidden: Tensor, targets: Tensor | None, tied: Tensor | None) -> Tensor:
        """Return the sum of token losses, or without targets our rows of the logits."""
        weight = tied if self.output is None else self.output.weight
        assert weight is not None
        logits = linear(self.norm(hidden), weight, None, self.deferred, enter=self.enter)
        if targets is None:
            return logits
        return cross_entropy_sum(logits, targets, self.tp, self.first_row)
