"""How much faster than what `cuboid plan` finds a layout is that a far longer search finds.

Run:     python tests/benchmarks/search_quality.py [--problems N] [--seed S] [--longer K]
Method:  Random problems: a preset model, a preset cluster with as many nodes as wanted, a batch, a sequence
         length. Each is searched twice in one process: as `cuboid plan` does, and with K times the effort
         and without putting off what is not expected to gain. Printed: the loss, the fastest step found over
         that of the long search, and what either took. The long search is no proof either.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from unittest.mock import patch

from planner.search import EFFORT, SearchResult, search
from profiles.cluster import ClusterSpec
from profiles.errors import CuboidError
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset

MODELS = (
    *("gpt3-7.5b", "gpt3-18b", "gpt3-22b", "gpt3-39b", "gpt3-145b", "gpt3-175b", "gpt3-530b", "gpt3-1t"),
    *("llama2-13b", "llama2-70b", "llama3.1-8b", "llama3.1-70b", "llama3.1-405b"),
)
CLUSTERS = ("selene", "dgx-h100", "dgx-b200", "dgx1-v100-32gb", "aws-p4d", "gcp-a3-mega", "rtx4090-8")
DEVICES = (8, 16, 24, 32, 64, 96, 128, 256, 512, 1024, 2048)


def problem(chance: random.Random) -> tuple[str, Callable[[int], SearchResult]]:
    """Return a problem's name and its search with a given effort."""
    name, machine, devices = chance.choice(MODELS), chance.choice(CLUSTERS), chance.choice(DEVICES)
    batch = chance.choice((1, 2, 4, 8)) * max(64, devices // chance.choice((1, 2, 4, 8)))
    model: ModelSpec = model_preset(name)
    if chance.random() < 1 / 3:
        model = model.model_copy(update={"seq_len": 8192})
    cluster: ClusterSpec = cluster_preset(machine)
    cluster = cluster.with_nodes(-(-devices // cluster.devices_per_node))

    def run(effort: int) -> SearchResult:
        return search(model, cluster, devices=devices, global_batch=batch, effort=effort)

    return f"{name} at {model.seq_len} on {devices} of {machine}, batch {batch}", run


def fastest(result: SearchResult) -> float:
    """Return the shortest step of all layouts that were priced."""
    return min(plan.estimate.step_seconds for plan in (*result.plans, *result.others))


def main() -> None:
    """Print the loss of every problem, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longer", type=int, default=20)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    losses, seconds, refused = [], [], 0
    for _ in range(options.problems):
        name, run = problem(chance)
        try:
            short = run(EFFORT)
            with patch("planner.contest.DOUBT", float("inf")):
                long = run(options.longer * EFFORT)
        except CuboidError:
            refused += 1
            continue
        losses.append(fastest(short) / min(fastest(short), fastest(long)) - 1)
        seconds.append(short.seconds)
        print(
            f"{losses[-1]:7.2%}  {short.seconds:5.2f} s ({short.priced:3} simulated)"
            f"  {long.seconds:6.2f} s ({long.priced:4})  {name}",
            flush=True,
        )
    print(
        f"{len(losses)} problems, {refused} more that nothing fits: loss {statistics.mean(losses):.2%} on"
        f" average, {max(losses):.2%} at most, above 1 % in {sum(loss > 0.01 for loss in losses)};"
        f" {statistics.mean(seconds):.2f} s on average, {max(seconds):.2f} s at most"
    )


if __name__ == "__main__":
    main()
