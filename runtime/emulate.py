"""Measure a schedule with waiting stages: `python -m runtime.emulate --request FILE --output FILE`.

Starts one process a pipeline rank on this machine, runs the schedule in the executor a few times, and writes
the cycle of every rank beside the simulated one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from planner.emulation import EmulatedCell, Emulation, EmulationRequest, RankCycle
from planner.layout import Layout
from planner.schedules import LoweredAction, Schedule, parse_schedule, simulate
from profiles.documents import read_document, write_yaml
from profiles.errors import CuboidError
from runtime.bench.ranks import Place, run_ranks
from runtime.emulated import (
    EmulatedAccelerator,
    EmulatedStage,
    EmulatedTransport,
    EmulatedUpdates,
    NoReduction,
    barrier,
    wait_precisely,
)
from runtime.executor import Executor, StepData
from runtime.mesh import build_mesh, local_device
from runtime.pipeline import message_edges, proved
from runtime.recorder import Recorder, Span

SHAPE = (1, 16)
WARM_RUNS = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulation; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.emulate", description="Measure a schedule.")
    parser.add_argument("--request", type=Path, required=True, help="an emulation request")
    parser.add_argument("--output", type=Path, required=True, help="where to write what was measured")
    options = parser.parse_args(arguments)
    try:
        request = read_document(options.request).read(EmulationRequest)
        schedule = parse_schedule(json.dumps(request.schedule), name=str(options.request)).schedule
        proved(schedule)
    except CuboidError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return run_ranks(lambda place: _rank(place, request, schedule, options.output), schedule.ranks, 1)


def _rank(place: Place, request: EmulationRequest, schedule: Schedule, output: Path) -> None:
    """Run one rank; the first writes the result."""
    runs = run_emulated(schedule, request)
    gathered: list[list[Run] | None] = [None] * place.ranks
    dist.all_gather_object(gathered, runs)
    if place.rank == 0:
        write_yaml(output, summary(request, schedule, [run for run in gathered if run is not None]))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One repeat on one rank: when its host ran which cells, when its device began, how long it was busy."""

    spans: list[Span]
    began: float
    busy_seconds: float

    @property
    def seconds(self) -> float:
        """From the beginning of the first cell to the end of the last."""
        return self.spans[-1].end - self.began if self.spans else 0.0


def run_emulated(schedule: Schedule, request: EmulationRequest) -> list[Run]:
    """Run `schedule` on this rank, in step with all others; return every repeat."""
    wait_precisely()
    lowered, times, rank = proved(schedule), request.times, dist.get_rank()
    layout = Layout(pp=schedule.ranks, chunks=schedule.chunks, global_batch=schedule.microbatches)
    mesh = build_mesh(
        layout, placement=schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    recorder = Recorder()
    device = EmulatedAccelerator()
    stages = {stage: EmulatedStage(times, stage, SHAPE, device) for stage in schedule.stages_of(rank)}
    executor = Executor(
        stages=stages,
        lowered=lowered,
        rank=rank,
        transport=EmulatedTransport(mesh, times, device, shape=SHAPE, unclaimed=4 * schedule.stages),
        reducer=NoReduction(),
        recorder=recorder,
        updates=EmulatedUpdates(times, device),
    )
    tokens = torch.zeros((schedule.microbatches, *SHAPE), dtype=torch.float64)
    data = StepData(tokens=tokens, targets=tokens, valid_tokens=1)
    runs = []
    for step in range(WARM_RUNS + request.repeats):
        recorder.begin_step(step)
        barrier(mesh)
        device.start()
        executor.step(data)
        spans = [s for s in recorder.spans if _computes(s)]
        runs.append(Run(spans=spans, began=device.first_began or 0.0, busy_seconds=device.busy_seconds))
    return runs[WARM_RUNS:]


def _computes(span: Span) -> bool:
    return isinstance(span.label, LoweredAction) and span.label.kind.is_compute


def summary(request: EmulationRequest, schedule: Schedule, ranks: Sequence[Sequence[Run]]) -> Emulation:
    """Return what was measured; `ranks` holds the runs as [rank][repeat]."""
    timeline = simulate(schedule, request.times)
    repeats = range(len(ranks[0]))
    spans = [[runs[i].seconds for runs in ranks] for i in repeats]
    busy = [[runs[i].busy_seconds for runs in ranks] for i in repeats]
    samples = [max(row) for row in spans]
    middle = sorted(repeats, key=lambda i: samples[i])[len(samples) // 2]
    origin = min(runs[middle].began for runs in ranks if runs[middle].spans)
    cycle = median(samples)
    rows = [
        RankCycle(
            rank=rank,
            span=median(row[rank] for row in spans),
            busy=median(row[rank] for row in busy),
            wait=max(0.0, median(a[rank] - b[rank] for a, b in zip(spans, busy, strict=True))),
            simulated_span=timeline.spans[rank],
        )
        for rank in range(len(ranks))
    ]
    return Emulation(
        schedule=schedule.name,
        cycle=cycle,
        simulated_cycle=timeline.cycle,
        bubble_fraction=max(0.0, 1.0 - sum(busy[middle]) / (len(ranks) * samples[middle])),
        simulated_bubble_fraction=timeline.bubble_fraction,
        samples=tuple(samples),
        ranks=tuple(rows),
        actions=tuple(_cells(ranks, middle, origin)),
    )


def _cells(ranks: Sequence[Sequence[Run]], repeat: int, origin: float) -> list[EmulatedCell]:
    cells = []
    for rank, runs in enumerate(ranks):
        for label, _, ready, end in runs[repeat].spans:
            assert isinstance(label, LoweredAction)
            cells.append(
                EmulatedCell(
                    rank=rank,
                    action=label.kind.name,
                    stage=label.stage,
                    microbatch=label.microbatch,
                    start=ready - origin,
                    end=end - origin,
                )
            )
    return cells


if __name__ == "__main__":
    sys.exit(main())
