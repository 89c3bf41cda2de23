"""Time of one optimizer step per parameter: the gradient clip, then AdamW with fp32 state."""

from __future__ import annotations

import time

import torch
from torch import nn

from planner.job import OptimizerSpec
from profiles.bench_request import BenchRequest
from runtime.bench.ranks import Place
from runtime.bench.stopwatch import Lap, stopwatch
from runtime.optimizer import Optimizer, clip_by_global_norm

LEAST_PARAMETERS = 4_000_000  # a step meets them, their gradients and moments in memory, not in a cache
MOST_PARAMETERS = 16_000_000
SIDE = 512


def sample_optimizer(
    request: BenchRequest, place: Place, *, window_seconds: float, least: int
) -> dict[str, list[Lap]]:
    """Step over about as many parameters as a rank holds; return seconds per parameter."""
    wanted = min(MOST_PARAMETERS, max(LEAST_PARAMETERS, request.model.parameters // request.ranks))
    parameters = {
        f"weight.{index}": nn.Parameter(torch.randn(SIDE, SIDE, device=place.device))
        for index in range(-(-wanted // SIDE**2))
    }
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    spec = OptimizerSpec()
    optimizer = Optimizer(spec, parameters)
    watch = stopwatch(place.device)
    laps: list[Lap] = []
    share = 1.0 / (len(parameters) * SIDE**2)
    end = time.perf_counter() + window_seconds
    while len(laps) <= least or time.perf_counter() < end:
        watch.start()
        clip_by_global_norm(parameters, counted=parameters.keys(), groups=(), max_norm=spec.clip_norm)
        optimizer.step(spec.learning_rate)
        watch.lap("seconds")
        lap = watch.read()["seconds"]
        laps.append(Lap(lap.seconds * share, None if lap.cpu_seconds is None else lap.cpu_seconds * share))
    return {"seconds": laps[1:]}  # the first step warms up
