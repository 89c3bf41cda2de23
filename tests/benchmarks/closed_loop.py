"""The closed loop on this machine: every feasible layout of a small model is predicted, run and compared.

    bench (all ranks at once) ─► price every layout ─► run every layout ─► error, tau, regret

Method: nothing of the runs goes into the cost table. Layouts are run in rounds, in another order each round,
on forked ranks with the runtime's own trainer, the first steps of every round left out. The bench is done in
slices between the runs. On a shared machine, whose speed wanders, everything is then compared at two paces:

    undisturbed   a layout's fastest step, and the least of every bench entry over the slices: what others do
                  on the machine only adds time
    as it came    the median of a layout's steps, and the mean of every entry over the slices

How well the layouts' times of odd and even rounds agree bounds what any prediction can reach.

    python tests/benchmarks/closed_loop.py --ranks 2 --bench-seconds 160 --slices 8 --rounds 6 --output o.json

Prints, per layout, measured and predicted step time; then, at each pace, the mean absolute error, Kendall's
tau, how much slower the layout that `cuboid plan` recommends is than the best measured (regret), and the
error once the runs are folded into the table by `cuboid calibrate`: of all, and of each run held out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch.distributed as dist
from cost_slices import Statistic, averaged, fastest
from every_layout import valid

from planner.bench import measure
from planner.calibrate import MeasuredRun, calibrate
from planner.costs import price
from planner.estimate import Estimate, Memory, TimeBreakdown
from planner.job import Job
from planner.layout import Layout
from planner.plan import Plan
from planner.probe import probe
from planner.schedules.families import FAMILIES
from planner.search import RankedPlan, search
from profiles.cluster import ClusterSpec
from profiles.corpus import load_corpus
from profiles.costs import CostTable
from profiles.documents import plain
from profiles.model import ModelSpec
from runtime.bench.ranks import Place, run_ranks
from runtime.bench.warm_up import warm_up
from runtime.mesh import build_mesh
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges
from runtime.recorder import Recorder
from runtime.trainer import Trainer

WARM_UP_STEPS = 2
MODEL = ModelSpec(
    name="closed-loop", layers=4, hidden=256, heads=4, vocab=256, seq_len=128, tied_embeddings=True
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Runs one layout on one rank; rank 0 writes the seconds of each step and the peak bytes."""

    plan: Plan
    steps: int
    output: Path

    def __call__(self, place: Place) -> None:
        """Train for a few steps."""
        job = Job(plan=self.plan, steps=self.steps + WARM_UP_STEPS)
        layout = self.plan.layout
        lowered = lowered_schedule(layout)
        mesh = build_mesh(
            layout,
            placement=lowered.schedule.placement,
            device=place.device,
            edges=message_edges(lowered),
        )
        pipeline = build_pipeline(
            self.plan.model, layout, mesh=mesh, lowered=lowered, seed=job.seed, recorder=Recorder()
        )
        trainer = Trainer(job, mesh=mesh, pipeline=pipeline, corpus=load_corpus(None))
        seconds, peak = [], 0
        for step in range(self.steps + WARM_UP_STEPS):
            dist.barrier()
            begin = time.perf_counter()
            peak = max(trainer.advance(step)[0].peak_bytes)
            seconds.append(time.perf_counter() - begin)
        if place.rank == 0:
            self.output.write_text(json.dumps({"seconds": seconds[WARM_UP_STEPS:], "peak_bytes": peak}))


@dataclass(kw_only=True)
class Measurement:
    """What was predicted and measured for one layout."""

    layout: Layout
    predicted_seconds: float = 0.0
    predicted_bytes: float = 0.0
    recommended: bool = False
    rounds: list[list[float]] = field(default_factory=list)  # seconds of each step
    peak_bytes: int = 0
    statistic: Statistic = min

    @property
    def measured_seconds(self) -> float:
        """The fastest of all steps of all rounds, or their median."""
        return self.statistic(second for steps in self.rounds for second in steps)

    def half(self, start: int) -> float:
        """Likewise, of every second round."""
        return self.statistic(second for steps in self.rounds[start::2] for second in steps)

    @property
    def error(self) -> float:
        """Relative error of the predicted step time."""
        return self.predicted_seconds / self.measured_seconds - 1


def run_rounds(
    found: Sequence[Measurement],
    cluster: ClusterSpec,
    *,
    rounds: int,
    steps: int,
    pause: Callable[[], None],
    every: int,
) -> None:
    """Run every layout once a round, shuffled, with a `pause` before every so many of them."""
    done = 0
    for number in range(rounds):
        order = list(found)
        random.Random(number).shuffle(order)
        for index, measurement in enumerate(order):
            if done % every == 0:
                pause()
            done += 1
            say(f"round {number + 1}/{rounds}, layout {index + 1}/{len(order)}")
            run_one(measurement, cluster, steps=steps)


def say(text: str) -> None:
    """Show progress, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:90}")
        sys.stderr.flush()


def run_one(measurement: Measurement, cluster: ClusterSpec, *, steps: int) -> None:
    """Run one layout and add its steps to the measurement."""
    plan = Plan(model=MODEL, cluster=cluster, layout=measurement.layout)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "steps.json"
        ranks = measurement.layout.world_size
        code = run_ranks(Trial(plan=plan, steps=steps, output=output), ranks, threads=1)
        if code:
            raise SystemExit(f"{describe(measurement.layout)} failed with exit code {code}")
        result = json.loads(output.read_text())
    measurement.rounds.append(result["seconds"])
    measurement.peak_bytes = max(measurement.peak_bytes, result["peak_bytes"])


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the share of pairs ordered alike minus the share ordered otherwise (tau-a)."""
    score = count = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[i + 1 :]:
            count += 1
            score += (a > c) - (a < c) if (b > d) else (a < c) - (a > c) if b < d else 0
    return score / max(1, count)


def summary(found: Sequence[Measurement]) -> dict[str, float]:
    """Return error, tau and regret over all layouts."""
    best = min(m.measured_seconds for m in found)
    chosen = next(m for m in found if m.recommended)
    errors = [abs(m.error) for m in found]
    repeated = all(len(m.rounds) > 1 for m in found)
    return {
        "layouts": len(found),
        "mean_absolute_error": statistics.mean(errors),
        "median_absolute_error": statistics.median(errors),
        "worst_absolute_error": max(errors),
        "bias": statistics.mean(m.error for m in found),
        "tau": kendall_tau([(m.predicted_seconds, m.measured_seconds) for m in found]),
        "regret": chosen.measured_seconds / best - 1,
        "tau_between_rounds": kendall_tau([(m.half(0), m.half(1)) for m in found]) if repeated else math.nan,
        "apart_between_rounds": statistics.mean(abs(m.half(0) / m.half(1) - 1) for m in found)
        if repeated
        else math.nan,
        "memory_error": statistics.mean(abs(m.predicted_bytes / m.peak_bytes - 1) for m in found),
    }


def describe(layout: Layout) -> str:
    """Return a layout in a few words."""
    words = f"tp{layout.tp} pp{layout.pp} dp{layout.dp} mb{layout.microbatch} {layout.schedule}"
    return words + (f" v{layout.chunks}" if layout.chunks > 1 else "")


def main() -> None:
    """Run the loop and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--bench-seconds", type=float, default=120.0, help="all slices together")
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--schedules", nargs="*", help="only these schedules")
    parser.add_argument("--output", type=Path, help="keep everything as JSON")
    options = parser.parse_args()
    cluster = probe(ranks=options.ranks)
    found = [Measurement(layout=layout) for layout in valid(MODEL, options.ranks, options.global_batch)]
    if options.schedules:
        found = [each for each in found if each.layout.schedule in options.schedules]
    tables: list[CostTable] = []
    warm_up()
    run_rounds(
        found,
        cluster,
        rounds=options.rounds,
        steps=options.steps,
        pause=lambda: tables.append(bench(cluster, options.ranks, options.bench_seconds / options.slices)),
        every=-(-len(found) * options.rounds // options.slices),
    )
    used: dict[str, tuple[CostTable, Statistic]] = {
        "undisturbed": (fastest(tables), min),
        "as it came": (averaged(tables), statistics.median),
    }
    paces = {pace: at_pace(found, cluster, *how, options) for pace, how in used.items()}
    report(paces["undisturbed"])
    totals = {
        pace: summary(paces[pace]) | calibrated(paces[pace], costs, cluster)
        for pace, (costs, _) in used.items()
    }
    for name in totals["undisturbed"]:
        print(f"{name:24}" + "".join(f"{values[name]:9.3f} ({pace})" for pace, values in totals.items()))
    if options.output is not None:
        write(options.output, paces, totals, tables)


def at_pace(
    found: Sequence[Measurement],
    cluster: ClusterSpec,
    costs: CostTable,
    statistic: Statistic,
    options: argparse.Namespace,
) -> list[Measurement]:
    """Return the layouts with predictions from `costs`, measured by `statistic`."""
    compared = [replace(each, statistic=statistic) for each in found]
    predict(compared, cluster, costs)
    best = recommended(cluster, costs, options.ranks, options.global_batch, options.schedules)
    for each in compared:
        each.recommended = each.layout == best.layout
    if not any(each.recommended for each in compared):
        raise SystemExit(f"the search recommends {describe(best.layout)}, which was not run")
    return compared


def bench(cluster: ClusterSpec, ranks: int, seconds: float) -> CostTable:
    """Measure one slice, from scratch."""
    return measure(
        MODEL,
        ranks=ranks,
        seconds=seconds,
        microbatches=(1, 2, 4, 8),
        cluster=cluster,
        progress=lambda p: say(f"bench {p.seconds_left:5.1f} s left, {p.text}"),
    )


def predict(found: Sequence[Measurement], cluster: ClusterSpec, costs: CostTable) -> None:
    """Price every layout."""
    for each in found:
        estimate = price(MODEL, cluster, each.layout, costs=costs)
        each.predicted_seconds = estimate.step_seconds
        each.predicted_bytes = estimate.memory.peak_bytes


def recommended(
    cluster: ClusterSpec, costs: CostTable, ranks: int, batch: int, schedules: Sequence[str] | None
) -> RankedPlan:
    """Return what the search recommends within the same space."""
    pins = {"recompute": "none", "sequence_parallel": False, "rank_order": "tp-dp-pp", "precision": "fp32"}
    result = search(
        MODEL, cluster, devices=ranks, global_batch=batch, costs=costs, pins=pins, top=100, idle=False
    )
    known = {
        family.name for family in FAMILIES if family.flush and (not schedules or family.name in schedules)
    }
    return next(plan for plan in result.plans if plan.layout.schedule in known)


def calibrated(found: Sequence[Measurement], costs: CostTable, cluster: ClusterSpec) -> dict[str, float]:
    """Return the errors before and after calibration, step times alone."""
    runs = [
        MeasuredRun(
            name=describe(m.layout),
            plan=Plan(model=MODEL, cluster=cluster, layout=m.layout),
            record=Estimate(
                step_seconds=m.measured_seconds,
                tokens_per_second=0.0,
                model_flops_per_device=0.0,
                time=TimeBreakdown(),
                memory=Memory(peak_bytes=m.peak_bytes),
            ),
        )
        for m in found
    ]
    calibration = calibrate(runs, costs).costs.calibration
    assert calibration is not None
    return {
        "error_calibrated": calibration.error_after,
        "error_held_out": calibration.error_held_out or 0.0,
    }


def report(found: Sequence[Measurement]) -> None:
    """Print the layouts from the fastest measured on."""
    best = min(m.measured_seconds for m in found)
    for m in sorted(found, key=lambda m: m.measured_seconds):
        memory = f"{m.peak_bytes >> 20} MiB ({m.predicted_bytes / m.peak_bytes - 1:+.0%})"
        mark = "*" if m.recommended else " "
        print(
            f"{mark} {describe(m.layout):42} measured {m.measured_seconds * 1e3:8.1f} ms"
            f" ({m.measured_seconds / best - 1:+5.0%}) predicted {m.predicted_seconds * 1e3:8.1f} ms"
            f" ({m.error:+5.1%})  memory {memory}"
        )


def write(
    output: Path,
    paces: Mapping[str, Sequence[Measurement]],
    totals: Mapping[str, Mapping[str, float]],
    tables: Sequence[CostTable],
) -> None:
    """Keep everything as JSON."""
    rows = [
        {
            "layout": plain(same[0].layout),
            "seconds": same[0].rounds,
            "predicted_seconds": {
                pace: each.predicted_seconds for pace, each in zip(paces, same, strict=True)
            },
            "peak_bytes": same[0].peak_bytes,
        }
        for same in zip(*paces.values(), strict=True)
    ]
    output.write_text(json.dumps({"summary": totals, "layouts": rows, "slices": list(map(plain, tables))}))


if __name__ == "__main__":
    main()
