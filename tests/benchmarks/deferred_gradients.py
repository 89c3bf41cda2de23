"""Processor time of one backward: whole, split by deferral, and split by torch.distributed.pipelining.

    python tests/benchmarks/deferred_gradients.py

Method: one process, one thread, one stage of four GPT-2 blocks (hidden 64, 128 and 256, 2 sequences of 128
tokens, fp32), forward and backward of one microbatch. What splitting costs does not grow with the arithmetic,
whose noise does: the small sizes show it sharpest. The four ways alternate within each round; reported is
the median over rounds of each way's processor time, and the median over rounds of the differences from the
whole backward of the same model, with quartiles, and the difference of the least times, which a busy machine
disturbs less. A cell is one microbatch on one stage. `torch split` runs the input and weight halves that
torch's zero-bubble schedules run, on the same blocks in plain modules. As in training, the process keeps the
memory it frees; with `--give-back` it does not, and faults the pages of what was put aside in again in every
cell.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight
from torch.nn import functional

from profiles.model import ModelSpec
from runtime.allocator import keep_freed_memory
from runtime.models import Stage, build_stage
from runtime.tensor_parallel import TensorParallel

HEADS, LAYERS = 8, 4
SIZES = ((64, 300), (128, 150), (256, 40))  # hidden and rounds


class PlainBlock(nn.Module):
    """The block of `runtime.models` in torch's own modules."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.norms[0](hidden)
        shape = (*hidden.shape[:2], HEADS, -1)
        query, key, value = (
            layer(normed).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.output(mixed.transpose(1, 2).flatten(2))
        return hidden + self.down(functional.gelu(self.up(self.norms[1](hidden))))


def whole(model: nn.Module, hidden: Tensor) -> None:
    result = model(hidden)
    result.backward(result.detach())


def deferred(stage: Stage, hidden: Tensor) -> None:
    result = stage(hidden)
    with stage.deferred.collecting(0):
        result.backward(result.detach())
    stage.deferred.run(0)


def torch_split(model: nn.Module, hidden: Tensor) -> None:
    result = model(hidden)
    _, groups = stage_backward_input([result], [result.detach()], [hidden], model.parameters())
    stage_backward_weight(model.parameters(), groups)


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--give-back", action="store_true", help="let the allocator return freed memory")
    if not parser.parse_args().give_back:
        keep_freed_memory()
    torch.set_num_threads(1)
    for size, rounds in SIZES:
        print(f"hidden {size}")
        compare(size, rounds)


def compare(size: int, rounds: int) -> None:
    """Alternate the four ways on a stage of blocks as wide as `size`."""
    torch.manual_seed(0)
    spec = ModelSpec(layers=LAYERS + 1, hidden=size, heads=HEADS, vocab=256, seq_len=128)
    stage = build_stage(
        spec,
        layers=range(LAYERS),
        first=False,
        last=False,
        tp=TensorParallel(),
        seed=0,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    plain = nn.Sequential(*(PlainBlock(size) for _ in range(LAYERS)))
    hidden = torch.randn(2, 128, size)
    ways: dict[str, Callable[[Tensor], None]] = {
        "cuboid whole": lambda x: whole(stage, x),
        "cuboid split": lambda x: deferred(stage, x),
        "torch whole": lambda x: whole(plain, x),
        "torch split": lambda x: torch_split(plain, x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    faults: dict[str, list[int]] = {name: [] for name in ways}
    for number in range(rounds + 3):
        for name, run in ways.items():
            leaf = hidden.clone().requires_grad_()
            before, start = page_faults(), time.process_time()
            run(leaf)
            if number >= 3:  # the first rounds warm up
                seconds[name].append(time.process_time() - start)
                faults[name].append(page_faults() - before)
    for name, values in seconds.items():
        print(
            f"{name:14}{1e3 * statistics.median(values):8.2f} ms a cell, forward included,"
            f" {statistics.median(faults[name]):.0f} page faults"
        )
    for name in ("cuboid", "torch"):
        pairs = zip(seconds[f"{name} split"], seconds[f"{name} whole"], strict=True)
        least = 1e3 * (min(seconds[f"{name} split"]) - min(seconds[f"{name} whole"]))
        low, middle, high = statistics.quantiles([1e3 * (split - base) for split, base in pairs], n=4)
        print(
            f"{name}: splitting costs {middle:+.2f} ms a cell (quartiles {low:+.2f} … {high:+.2f};"
            f" least against least {least:+.2f})"
        )
    ratio = statistics.median(
        a / b for a, b in zip(seconds["cuboid split"], seconds["torch split"], strict=True)
    )
    print(f"split backward, cuboid / torch: {ratio:.3f} of the processor time")


if __name__ == "__main__":
    main()
