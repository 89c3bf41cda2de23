"""A pipeline stage: a run of consecutive blocks, with the embedding on the first and the head on the last."""

from __future__ import annotations

from torch import Tensor, nn

from planner.layout import Recompute
from profiles.model import ModelSpec
from runtime.linear import DeferredGradients, DeferringModule
from runtime.models.block import Block
from runtime.models.embedding import Embedding, TokenEmbedding
from runtime.models.head import Head
from runtime.models.rotary import Rotary
from runtime.tensor_parallel import ShardSpec


class Stage(nn.Module):
    """The layers of one pipeline stage, named as in the whole model.

        blocks.7.attention.query.weight   embedding.token.weight   head.norm.weight   head.output.weight

    The last stage of a tied model holds its own copy of `embedding.token.weight` unless it is also the
    first. Nothing here divides by a count of tokens or microbatches.
    """

    def __init__(
        self, spec: ModelSpec, *, layers: range, first: bool, last: bool, recompute: Recompute = "none"
    ) -> None:
        super().__init__()
        self.spec, self.layers, self.first, self.last = spec, layers, first, last
        self.embedding: Embedding | nn.ModuleDict | None = None
        if first:
            positions = spec.seq_len if spec.position == "learned" else None
            self.embedding = Embedding(vocab=spec.vocab, width=spec.hidden, positions=positions)
        elif last and spec.tied_embeddings:
            self.embedding = nn.ModuleDict({"token": TokenEmbedding(spec.vocab, spec.hidden)})
        self.blocks = nn.ModuleDict({str(layer): Block(spec, recompute) for layer in layers})
        self.head = Head(spec) if last else None
        self.rotary: Rotary | None = None
        self.shard_specs: dict[str, ShardSpec] = {}
        self.deferred = DeferredGradients()

    def share_deferred(self) -> None:
        """Let every layer hand its weight gradients to this stage's queue."""
        for module in self.modules():
            if isinstance(module, DeferringModule):
                module.deferred = self.deferred

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Run the stage on one microbatch.

        Args:
            inputs: int64 tokens [microbatch, seq] on the first stage, else hidden [microbatch, seq, hidden].
            targets: on the last stage, int64 tokens [microbatch, seq] in which −100 is ignored.

        Returns:
            Hidden states; on the last stage the sum of the token losses, or without targets the logits of
            our rows of the vocabulary.
        """
        hidden = self.embedding(inputs) if isinstance(self.embedding, Embedding) else inputs
        for block in self.blocks.values():
            hidden = block(hidden, self.rotary)
        if self.head is None:
            return hidden
        result: Tensor = self.head(hidden, targets, self._token_weight())
        return result

    def tied_weight(self) -> nn.Parameter | None:
        """Return our end of a tied embedding whose other end lives on another stage, else None."""
        if not self.spec.tied_embeddings or self.first == self.last:
            return None
        return self._token_weight()

    def shards(self) -> dict[str, ShardSpec]:
        """Return how each parameter lies over the tensor-parallel ranks, by global name."""
        return dict(self.shard_specs)

    def _token_weight(self) -> nn.Parameter | None:
        if isinstance(self.embedding, Embedding):
            return self.embedding.token.weight
        if self.embedding is None:
            return None
        token = self.embedding["token"]
        assert isinstance(token, TokenEmbedding)
        return token.weight
