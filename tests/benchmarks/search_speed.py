"""How fast layouts are bounded, and how long `cuboid plan` takes, interpreter start included.

Run:     python tests/benchmarks/search_speed.py
Method:  (1) every layout of a space is bounded, none pruned, in one process on one core: layouts per second
         of processor time. (2) `cuboid plan … --json` as a process, best of three: wall, processor seconds,
         and the largest resident set.
Peer:    Calculon (caa4b11) evaluates 46-67 layouts/s on one core of such a machine as shipped, 370-415 with
         its logging silenced; both measured by us on one core of a slow 2-core cloud machine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np

from planner.columns import layer_times
from planner.costs import MODERN
from planner.loads import splits
from planner.pins import Pins
from planner.rank_bounds import Pricing
from planner.space import build_space
from planner.targets import CUBOID
from planner.variant_bounds import variant_bounds
from profiles.presets import cluster_preset, model_preset

CASES = (
    ("gpt3-175b", "dgx-h100", 1024, 1536),
    ("llama3.1-70b", "dgx-h100", 1024, 1024),
    ("gpt3-175b", "selene", 64, 64),
    ("gpt3-1t", "selene", 512, 512),
    ("llama3.1-405b", "dgx-h100", 16384, 2048),
    ("llama3.1-405b", "dgx-h100", 100000, 8192),
)
AT_ONCE = 64  # skeletons


def bounding_rate() -> float:
    """Layouts per processor second when none is pruned."""
    model, cluster = model_preset("gpt3-175b"), cluster_preset("selene").with_nodes(8)
    space = build_space(model, cluster, devices=64, global_batch=64, target=CUBOID, pins=Pins())
    pricing = Pricing(model=model, cluster=cluster, software=MODERN)
    count = 0
    started = time.process_time()
    for begin in range(0, len(space.skeletons), AT_ONCE):
        rows = np.arange(begin, min(begin + AT_ONCE, len(space.skeletons)))
        choices = space.choices(rows)
        times = layer_times(space, choices, MODERN, None)
        split = splits(model.layers, space.skeletons.pp[choices.skeleton], times)
        variants = space.variants(choices)
        variant_bounds(space, pricing, choices, variants, times=times, split=split)
        count += len(variants)
    assert count == space.count()
    return count / (time.process_time() - started)


def plan_once(model: str, cluster: str, devices: int, batch: int) -> tuple[float, float, dict[str, object]]:
    """Wall and processor seconds of one `cuboid plan`, and its answer."""
    code = "from launcher.entry import entry; entry()"  # what the `cuboid` script calls
    words = ["plan", "--model", model, "--cluster", cluster, "--devices", str(devices)]
    command = [sys.executable, "-c", code, *words, "--global-batch", str(batch), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(done.stdout)


def main() -> None:
    """Print both measurements."""
    print(f"bounded, none pruned: {bounding_rate():,.0f} layouts/s")
    for case in CASES:
        runs = [plan_once(*case) for _ in range(3)]
        wall, processor, answer = min(runs, key=lambda run: run[0])
        model, _, devices, batch = case
        print(
            f"{model} on {devices}, batch {batch}: {wall:.2f} s ({processor:.2f} s of processor),"
            f" {answer['searched']:,} layouts, {answer['priced']} simulated, gap {answer['gap']:.1%}"
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest resident set: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
