"""Time of one optimizer step per parameter: AdamW with fp32 state, and the gradient clip before it."""

from __future__ import annotations

import time

import torch

from profiles.bench_request import BenchRequest
from runtime.bench.ranks import Place
from runtime.bench.stopwatch import Lap, stopwatch

MOST_PARAMETERS = 4_000_000
MATRIX_SIDE = 512


def sample_optimizer(
    request: BenchRequest, place: Place, *, window_seconds: float, least: int
) -> dict[str, list[Lap]]:
    """Step over about as many parameters as a rank holds; return seconds per parameter."""
    wanted = min(MOST_PARAMETERS, max(MATRIX_SIDE**2, request.model.parameters // request.ranks))
    count = -(-wanted // MATRIX_SIDE**2)
    shape = (MATRIX_SIDE, MATRIX_SIDE)
    parameters = [torch.nn.Parameter(torch.randn(shape, device=place.device)) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    watch, laps = stopwatch(place.device), []
    end = time.perf_counter() + window_seconds
    for index in range(10**6):
        watch.start()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        watch.lap("seconds")
        lap, share = watch.read()["seconds"], 1.0 / (count * MATRIX_SIDE**2)
        if index:  # the first step makes the state
            laps.append(
                Lap(lap.seconds * share, None if lap.cpu_seconds is None else lap.cpu_seconds * share)
            )
        if len(laps) >= least and time.perf_counter() >= end:
            break
    return {"seconds": laps}
