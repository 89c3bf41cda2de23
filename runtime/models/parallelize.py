"""Tensor parallelism applied to a stage from outside: the model's own code knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from runtime.linear import Entrance, Linear
from runtime.models.attention import Attention
from runtime.models.block import Block
from runtime.models.embedding import Embedding, TokenEmbedding
from runtime.models.mlp import MLP
from runtime.models.stage import Stage
from runtime.tensor_parallel import (
    Enter,
    EnterGathering,
    Leave,
    ShardSpec,
    TensorParallel,
    column_parallel,
    row_parallel,
)


def parallelize(stage: Stage, tp: TensorParallel, *, sequence_parallel: bool = False) -> None:
    """Replace the layers of a stage on the meta device by our shares, and say so in `stage.shard_specs`.

    With `sequence_parallel` the stage's hidden states hold our seq / tp positions only.
    """
    sequence_parallel = sequence_parallel and tp.size > 1
    enter = EnterGathering(tp=tp) if sequence_parallel else Enter(tp=tp)
    leave = partial(Leave, tp, sequence_parallel=sequence_parallel)
    shapes = {name: tuple(parameter.shape) for name, parameter in stage.named_parameters()}
    dims: dict[str, int] = {}
    if tp.size > 1:
        for name, half in _halves(stage):
            half.enter = enter
            for child, layer in list(half.named_children()):
                if not isinstance(layer, Linear):
                    continue
                row = child in {"output", "down"}
                share = row_parallel(layer, tp, leave()) if row else column_parallel(layer, tp)
                setattr(half, child, share)
                dims[f"{name}.{child}.weight"] = 1 if row else 0
                if not row:
                    dims[f"{name}.{child}.bias"] = 0
        dims |= _parallelize_vocabulary(stage, tp, enter, leave)
        if sequence_parallel and isinstance(stage.embedding, Embedding) and stage.embedding.position:
            stage.embedding.position.shard = tp.rank
    stage.shard_specs = {
        name: ShardSpec(dim=dims.get(name), shape=shape, partial=sequence_parallel and name not in dims)
        for name, shape in shapes.items()
    }


def _parallelize_vocabulary(
    stage: Stage, tp: TensorParallel, enter: Entrance, leave: Callable[[], Leave]
) -> dict[str, int]:
    rows = tp.slice(stage.spec.vocab)
    dims: dict[str, int] = {}
    if stage.embedding is not None:
        token = TokenEmbedding(len(rows), stage.spec.hidden, whole=False, first_row=rows.start)
        if isinstance(stage.embedding, Embedding):
            stage.embedding.token, stage.embedding.leave = token, leave()
        else:
            stage.embedding["token"] = token
        dims["embedding.token.weight"] = 0
    if stage.head is not None:
        stage.head.enter, stage.head.tp, stage.head.first_row = enter, tp, rows.start
        if stage.head.output is not None:
            stage.head.output = column_parallel(stage.head.output, tp)
            dims["head.output.weight"] = 0
    return dims


def _halves(stage: Stage) -> Iterator[tuple[str, Attention | MLP]]:
    for layer, block in stage.blocks.items():
        assert isinstance(block, Block)
        yield f"blocks.{layer}.attention", block.attention
        yield f"blocks.{layer}.mlp", block.mlp
