"""The executor against torch.distributed.pipelining: same schedule, ranks and stages, alternating in one run.

    python tests/benchmarks/executor.py [--rounds 5] [--part waiting|compute|all]

Waiting stages (real compute on fewer cores than ranks cannot rank schedules): p = 4, F = I = W = 10 ms a rank
and microbatch; the longest time of a rank in one step, median and best of the rounds, and the simulated one.
A stage begins when the host calls it, so that whatever an executor does between cells is lost: that is how
the two are compared. `queued` is our executor again, on stages with a queue such as accelerators have, where
the host works ahead (`runtime.emulated.EmulatedAccelerator`): that is what the simulator predicts.
Where the backward is split the two stages differ in their autograd graphs: torch finds the weight gradient by
walking the graph, so its stage has a weight with a wait of its own.
Real compute: processor time summed over the ranks and peak resident memory, of a small transformer. Both
sides first send a microbatch through each stage, as training does.
Ranks are forked gloo processes with one thread each. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
    ScheduleZBVZeroBubble,
)

from planner.layout import Layout
from planner.schedules import StageTimes, build, simulate
from planner.schedules.families import find_family
from profiles.model import ModelSpec
from runtime.bench.ranks import run_ranks
from runtime.emulated import (
    EmulatedAccelerator,
    EmulatedDevice,
    EmulatedStage,
    EmulatedTransport,
    NoReduction,
    wait_precisely,
    wait_until,
)
from runtime.executor import Executor, StepData
from runtime.loss import cross_entropy_sum
from runtime.memory import peak_bytes
from runtime.mesh import build_mesh, local_device
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges, proved
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel
from runtime.transport import Transport
from runtime.warm_up import warm_up

RANKS = 4
SECONDS = 0.010
SHAPE = (1, 16)
THEIRS = {
    "gpipe": (ScheduleGPipe, 1, "loop"),
    "1f1b": (Schedule1F1B, 1, "loop"),
    "interleaved-1f1b": (ScheduleInterleaved1F1B, 2, "loop"),
    "looped-bfs": (ScheduleLoopedBFS, 2, "loop"),
    "zb-h1": (ScheduleInterleavedZeroBubble, 1, "loop"),
    "zb-v": (ScheduleZBVZeroBubble, 2, "v"),
    "dualpipe-v": (ScheduleDualPipeV, 2, "v"),
}
MODEL = ModelSpec(layers=8, hidden=64, heads=8, vocab=100, seq_len=32, tied_embeddings=False)
BIG = ModelSpec(layers=8, hidden=256, heads=8, vocab=1000, seq_len=256, tied_embeddings=False)


class _Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, until, backward_seconds):
        ctx.seconds = backward_seconds
        result = tensor + 0.0
        wait_until(until)
        return result

    @staticmethod
    def backward(ctx, gradient):
        began, result = time.perf_counter(), gradient + 0.0
        wait_until(began + ctx.seconds)
        return result, None, None


class WaitingModule(nn.Module):
    """A stage for torch's schedules: the forward waits F, the backward I + W."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, inputs):
        began = time.perf_counter()
        if not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        return _Wait.apply(inputs, began + self.seconds, 2 * self.seconds)


class SplitWaitingModule(WaitingModule):
    """The same for a split backward: I waits in the graph of the input, W in that of the weight."""

    def __init__(self, seconds):
        super().__init__(seconds)
        self.weight = nn.Parameter(torch.zeros(SHAPE[1:], dtype=torch.float64))

    def forward(self, inputs):
        began = time.perf_counter()
        weight = _Wait.apply(self.weight, began, self.seconds)
        return _Wait.apply(inputs, began + self.seconds, self.seconds) + weight


def theirs(name, microbatches, make_module, example, loss):
    """Return a function that runs one step of torch's schedule on this rank."""
    schedule_class, chunks, placement = THEIRS[name]
    rank, count = dist.get_rank(), RANKS * chunks
    own = [rank + chunk * RANKS for chunk in range(chunks)]
    if placement == "v":
        own = [rank, count - 1 - rank]
    stages = [
        PipelineStage(make_module(stage), stage, count, torch.device("cpu"), input_args=example(stage))
        for stage in own
    ]
    argument = stages[0] if schedule_class in (ScheduleGPipe, Schedule1F1B) else stages
    schedule = schedule_class(argument, microbatches, loss_fn=loss, scale_grads=False)

    def step(tokens, targets):
        arguments = (tokens,) if 0 in own else ()
        target = targets if count - 1 in own else None
        schedule.step(*arguments, target=target, return_outputs=False)

    return step


def ours_waiting(name, microbatches, *, queued):
    """Return a function that runs one step of our schedule on this rank with waiting stages."""
    chunks = THEIRS[name][1]
    schedule = build(name, ranks=RANKS, microbatches=microbatches, chunks=chunks)
    times = waiting_times(schedule)
    lowered = proved(schedule)
    layout = Layout(pp=RANKS, chunks=chunks, global_batch=microbatches)
    mesh = build_mesh(layout, placement=schedule.placement, device=local_device(0), edges=())
    rank, unclaimed = dist.get_rank(), 4 * schedule.stages
    device = EmulatedAccelerator() if queued else EmulatedDevice()
    if isinstance(device, EmulatedAccelerator):
        transport = EmulatedTransport(mesh, times, device, shape=SHAPE, unclaimed=unclaimed)
    else:
        transport = Transport(mesh, shape=SHAPE, dtype=torch.float64, unclaimed=unclaimed)
    executor = Executor(
        stages={stage: EmulatedStage(times, stage, SHAPE, device) for stage in schedule.stages_of(rank)},
        lowered=lowered,
        rank=rank,
        transport=transport,
        reducer=NoReduction(),
        recorder=Recorder(),
    )

    def step(tokens, targets):
        if isinstance(device, EmulatedAccelerator):
            device.start()
        executor.step(StepData(tokens=tokens[:, None], targets=targets[:, None], valid_tokens=1))

    return step


def waiting_times(schedule):
    return StageTimes.uniform(
        stages=schedule.stages,
        chunks=schedule.chunks,
        forward=SECONDS,
        input_gradient=SECONDS,
        weight_gradient=SECONDS,
    )


def slowest(step, *arguments):
    """Return the longest time of a rank in one step."""
    dist.barrier()
    start = time.perf_counter()
    step(*arguments)
    spent = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
    dist.all_reduce(spent, op=dist.ReduceOp.MAX)
    return float(spent)


def waiting(place, name, microbatches, rounds, output):
    """Alternate both executors with waiting stages."""
    wait_precisely()
    seconds = SECONDS / THEIRS[name][1]
    data = torch.zeros(microbatches, SHAPE[1], dtype=torch.float64)

    def example(stage):
        return (torch.zeros(1, SHAPE[1], dtype=torch.float64, requires_grad=stage > 0),)

    module = SplitWaitingModule if find_family(name).split else WaitingModule
    ways = {
        "theirs": theirs(name, microbatches, lambda stage: module(seconds), example, lambda y, _: y.sum()),
        "ours": ours_waiting(name, microbatches, queued=False),
        "queued": ours_waiting(name, microbatches, queued=True),
    }
    samples = {who: [] for who in ways}
    for _ in range(rounds + 1):
        for who, step in ways.items():
            samples[who].append(slowest(step, data, data))
    if place.rank == 0:
        output.write_text(json.dumps({who: values[1:] for who, values in samples.items()}))


class TheirStage(nn.Module):
    """Our stage without targets, as torch's schedules want it."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, inputs):
        return self.stage(inputs)


def compute(place, who, name, spec, microbatches, rounds, output):
    """Run one executor on a real model; report processor seconds a step and peak memory over the ranks."""
    layout = Layout(pp=RANKS, global_batch=microbatches, schedule=name, precision="fp32")
    lowered = lowered_schedule(layout)
    mesh = build_mesh(
        layout, placement=lowered.schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    pipeline = build_pipeline(spec, layout, mesh=mesh, lowered=lowered, seed=1, recorder=Recorder())
    tokens = torch.randint(spec.vocab, (microbatches, 1, spec.seq_len))
    hidden = torch.zeros(1, spec.seq_len, spec.hidden)
    parameters = [p for _, p, _ in pipeline.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    scale = 1.0 / tokens.numel()
    warm_up(pipeline, spec, layout)
    if who == "theirs":
        peer = theirs(
            name,
            microbatches,
            lambda stage: TheirStage(pipeline.stages[stage]),
            lambda stage: (hidden.clone().requires_grad_() if stage else tokens[0],),
            lambda logits, targets: cross_entropy_sum(logits, targets, TensorParallel()) * scale,
        )

    def step():
        if who == "theirs":
            optimizer.zero_grad()
            peer(tokens[:, 0], tokens[:, 0])
        else:
            pipeline.gradients(StepData(tokens=tokens, targets=tokens, valid_tokens=tokens.numel()))
        optimizer.step()

    step()
    step()
    dist.barrier()
    start = time.process_time()
    for _ in range(rounds):
        step()
    spent = torch.tensor((time.process_time() - start) / rounds, dtype=torch.float64)
    dist.all_reduce(spent)
    peak = torch.tensor(float(peak_bytes(mesh.device)), dtype=torch.float64)
    dist.all_reduce(peak)
    if place.rank == 0:
        output.write_text(json.dumps({"cpu_seconds": float(spent), "peak_bytes": float(peak)}))


def measured(work, *arguments):
    """Run `work` on forked ranks and return what the first one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        code = run_ranks(lambda place: work(place, *arguments, output), RANKS, 1)
        assert code == 0, f"the ranks ended with {code}"
        return json.loads(output.read_text())


def part_waiting(rounds, names, counts):
    print(f"waiting stages, p = {RANKS}, F = I = W = {SECONDS * 1e3:.0f} ms: ms a step, median (best)")
    ways = "".join(f"{who:>18}" for who in ("theirs", "ours", "queued"))
    print(f"{'schedule':18} {'m':>3} {'simulated':>10}{ways}  ours/theirs    queued/simulated")
    for name in names:
        for microbatches in counts:
            result = measured(waiting, name, microbatches, rounds)
            schedule = build(name, ranks=RANKS, microbatches=microbatches, chunks=THEIRS[name][1])
            ideal = simulate(schedule, waiting_times(schedule)).makespan
            middle = {who: median(values) for who, values in result.items()}
            best = {who: min(values) for who, values in result.items()}
            shown = "".join(f"{f'{middle[who] * 1e3:.1f} ({best[who] * 1e3:.1f})':>18}" for who in result)
            print(
                f"{name:18} {microbatches:3} {ideal * 1e3:10.1f}{shown}"
                f"  {middle['ours'] / middle['theirs']:.3f} ({best['ours'] / best['theirs']:.3f})"
                f"  {middle['queued'] / ideal:.3f} ({best['queued'] / ideal:.3f})",
                flush=True,
            )


def part_compute(rounds, names, counts):
    print(f"real compute, p = {RANKS}: processor ms a step and peak MiB, sums over ranks, median of runs")
    for label, spec, steps in (("small", MODEL, 20), ("larger", BIG, 3)):
        for name in names:
            for microbatches in counts:
                rows = {"theirs": [], "ours": []}
                for _ in range(rounds):
                    for who, row in rows.items():
                        row.append(measured(compute, who, name, spec, microbatches, steps))
                cpu = {who: median(r["cpu_seconds"] for r in row) for who, row in rows.items()}
                peak = {who: median(r["peak_bytes"] for r in row) for who, row in rows.items()}
                print(
                    f"{label:7} {name:8} m = {microbatches:3}"
                    f"  cpu {cpu['theirs'] * 1e3:8.1f} → {cpu['ours'] * 1e3:8.1f}"
                    f"  ratio {cpu['ours'] / cpu['theirs']:.3f}"
                    f"  peak {peak['theirs'] / 2**20:7.0f} → {peak['ours'] / 2**20:7.0f}"
                    f"  ratio {peak['ours'] / peak['theirs']:.3f}",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["waiting", "compute", "all"], default="all")
    parser.add_argument("--schedules", default=",".join(THEIRS))
    parser.add_argument("--microbatches", default="8,32")
    options = parser.parse_args()
    names, counts = options.schedules.split(","), [int(n) for n in options.microbatches.split(",")]
    torch.set_num_threads(1)
    torch.optim.SGD([torch.ones(1)], lr=1.0)  # the imports that a first optimizer brings, before the fork
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.part in ("waiting", "all"):
        part_waiting(options.rounds, names, counts)
    if options.part in ("compute", "all"):
        part_compute(options.rounds, [name for name in names if name in ("gpipe", "1f1b")], counts)


if __name__ == "__main__":
    main()
