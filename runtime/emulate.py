"""Measure a schedule with waiting stages: `python -m runtime.emulate --request FILE --output FILE`.

Starts one process a pipeline rank on this machine, runs the schedule in the executor a few times, and writes
the cycle of every rank beside the simulated one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from planner.emulation import EmulatedCell, Emulation, EmulationRequest, RankCycle
from planner.layout import Layout
from planner.schedules import LoweredAction, Schedule, StageTimes, parse_schedule, simulate
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
from runtime.mesh import Mesh, build_mesh, local_device
from runtime.pipeline import message_edges, proved
from runtime.recorder import Recorder, Span
from runtime.transport import Transport

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
    gathered: list[list[list[Span]] | None] = [None] * place.ranks
    dist.all_gather_object(gathered, runs)
    if place.rank == 0:
        write_yaml(output, summary(request, schedule, [spans for spans in gathered if spans is not None]))


def run_emulated(schedule: Schedule, request: EmulationRequest) -> list[list[Span]]:
    """Run `schedule` on this rank, in step with all others; return the compute spans of every repeat."""
    wait_precisely()
    lowered, times, rank = proved(schedule), request.times, dist.get_rank()
    layout = Layout(pp=schedule.ranks, chunks=schedule.chunks, global_batch=schedule.microbatches)
    mesh = build_mesh(
        layout, placement=schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    recorder = Recorder()
    device = EmulatedAccelerator(recorder)
    stages = {stage: EmulatedStage(times, stage, SHAPE, device) for stage in schedule.stages_of(rank)}
    executor = Executor(
        stages=stages,
        lowered=lowered,
        rank=rank,
        transport=_transport(mesh, times, 4 * schedule.stages),
        reducer=NoReduction(),
        recorder=recorder,
        updates=EmulatedUpdates(times, device),
    )
    tokens = torch.zeros((schedule.microbatches, *SHAPE), dtype=torch.float64)
    data = StepData(tokens=tokens, targets=tokens, valid_tokens=1)
    runs = []
    for step in range(WARM_RUNS + request.repeats):
        recorder.begin_step(step + 1)
        barrier(mesh)
        executor.step(data)
        runs.append([s for s in recorder.spans if _computes(s)])
    return runs[WARM_RUNS:]


def _transport(mesh: Mesh, times: StageTimes, unclaimed: int) -> Transport:
    """Return what delivers messages as fast as it can, or as late as the interconnect would."""
    if times.latency or any(times.wire):
        return EmulatedTransport(mesh, times, shape=SHAPE, unclaimed=unclaimed)
    return Transport(mesh, shape=SHAPE, dtype=torch.float64, unclaimed=unclaimed)


def _computes(span: Span) -> bool:
    return isinstance(span.label, LoweredAction) and span.label.kind.is_compute


def summary(
    request: EmulationRequest, schedule: Schedule, ranks: Sequence[Sequence[Sequence[Span]]]
) -> Emulation:
    """Return what was measured; `ranks` holds the compute spans as [rank][repeat]."""
    timeline = simulate(schedule, request.times)
    repeats = range(len(ranks[0]))
    spans = [[runs[i][-1].end - runs[i][0].ready if runs[i] else 0.0 for runs in ranks] for i in repeats]
    busy = [[sum(s.end - s.ready for s in runs[i]) for runs in ranks] for i in repeats]
    samples = [max(row) for row in spans]
    middle = sorted(repeats, key=lambda i: samples[i])[len(samples) // 2]
    origin = min(runs[middle][0].ready for runs in ranks if runs[middle])
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


def _cells(ranks: Sequence[Sequence[Sequence[Span]]], repeat: int, origin: float) -> list[EmulatedCell]:
    cells = []
    for rank, runs in enumerate(ranks):
        for label, _, ready, end in runs[repeat]:
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
