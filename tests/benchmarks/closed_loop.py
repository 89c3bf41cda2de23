"""The closed loop on this machine: every feasible layout of a small model is predicted, run and compared.

    bench (all ranks at once) ─► price every layout ─► run every layout ─► error, tau, regret

Method: the cost table is measured first and nothing of the runs goes into it. Layouts are run in rounds, in
another order each round, on forked ranks with the runtime's own trainer; a layout's time is the median of its
steps over all rounds, the first steps of every round left out. Wrap it in a lock if others measure here too.

    python tests/benchmarks/closed_loop.py --ranks 2 --bench-seconds 60 --rounds 3 --output loop.json

Prints, per layout, measured and predicted step time; then the mean absolute error, Kendall's tau, how much
slower the layout that `cuboid plan` recommends is than the best measured (regret), and the error once the
runs are folded into the table by `cuboid calibrate`: of all, and of each run held out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch.distributed as dist

from planner.bench import load_costs, measure
from planner.calibrate import MeasuredRun, calibrate
from planner.costs import price
from planner.job import Job
from planner.layout import Layout, check_layout
from planner.plan import Estimate, Memory, Plan, TimeBreakdown
from planner.probe import probe
from planner.schedules.families import FAMILIES
from planner.search import RankedPlan, search
from planner.skeletons import divisors
from profiles.cluster import ClusterSpec
from profiles.corpus import load_corpus
from profiles.costs import CostTable
from profiles.documents import plain, write_yaml
from profiles.errors import ConfigError
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
    predicted_seconds: float
    predicted_bytes: float
    recommended: bool = False
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def measured_seconds(self) -> float:
        """Median over all steps of all rounds."""
        return statistics.median(self.seconds)

    @property
    def error(self) -> float:
        """Relative error of the predicted step time."""
        return self.predicted_seconds / self.measured_seconds - 1


def run_rounds(
    plans: Sequence[tuple[Layout, Estimate]],
    recommended: Layout,
    cluster: ClusterSpec,
    *,
    rounds: int,
    steps: int,
    limit_seconds: float,
) -> list[Measurement]:
    """Run every layout once a round, shuffled; stop early only when the time is over after a whole round."""
    found = [
        Measurement(
            layout=layout,
            predicted_seconds=estimate.step_seconds,
            predicted_bytes=estimate.memory.peak_bytes,
            recommended=layout == recommended,
        )
        for layout, estimate in plans
    ]
    begin = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - begin > limit_seconds:
            break
        order = list(found)
        random.Random(number).shuffle(order)
        for index, measurement in enumerate(order):
            say(f"round {number + 1}/{rounds}, layout {index + 1}/{len(order)}")
            run_one(measurement, cluster, steps=steps)
    return found


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
    measurement.seconds.extend(result["seconds"])
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
    return {
        "layouts": len(found),
        "mean_absolute_error": statistics.mean(errors),
        "median_absolute_error": statistics.median(errors),
        "worst_absolute_error": max(errors),
        "bias": statistics.mean(m.error for m in found),
        "tau": kendall_tau([(m.predicted_seconds, m.measured_seconds) for m in found]),
        "regret": chosen.measured_seconds / best - 1,
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
    parser.add_argument("--bench-seconds", type=float, default=60.0)
    parser.add_argument("--costs", type=Path, help="use (and go on from) this cost table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--limit-seconds", type=float, default=600.0)
    parser.add_argument("--schedules", nargs="*", help="only these schedules")
    parser.add_argument("--output", type=Path, help="keep everything as JSON")
    options = parser.parse_args()
    cluster = probe(ranks=options.ranks)
    costs = cost_table(cluster, options.ranks, options.bench_seconds, options.costs)
    plans = feasible(cluster, costs, options.ranks, options.global_batch, options.schedules)
    warm_up()
    best = recommended(cluster, costs, options.ranks, options.global_batch, options.schedules)
    if best.layout not in [layout for layout, _ in plans]:
        plans.append((best.layout, best.estimate))
    found = run_rounds(
        plans,
        best.layout,
        cluster,
        rounds=options.rounds,
        steps=options.steps,
        limit_seconds=options.limit_seconds,
    )
    report(found, options.output, costs, cluster)


def cost_table(cluster: ClusterSpec, ranks: int, seconds: float, path: Path | None) -> CostTable:
    """Measure, or read what was measured."""
    if path is not None and path.exists():
        return load_costs(path)
    table = measure(
        MODEL,
        ranks=ranks,
        seconds=seconds,
        microbatches=(1, 2, 4, 8),
        cluster=cluster,
        progress=lambda p: say(f"bench {p.seconds_left:5.1f} s left, {p.text}"),
    )
    if path is not None:
        write_yaml(path, table)
    return table


def feasible(
    cluster: ClusterSpec, costs: CostTable, ranks: int, batch: int, schedules: Sequence[str] | None
) -> list[tuple[Layout, Estimate]]:
    """Price every layout that uses all ranks, without recomputation and sequence parallelism.

    The layouts are listed here, apart from the search, so that nothing the search leaves out is missed.
    """
    found = []
    for layout in layouts(ranks, batch):
        if schedules and layout.schedule not in schedules:
            continue
        with suppress(ConfigError):  # the family has no schedule for these numbers, or heads do not divide
            check_layout(layout, MODEL)
            found.append((layout, price(MODEL, cluster, layout, costs=costs)))
    return found


def layouts(ranks: int, batch: int) -> Iterator[Layout]:
    """Yield every combination of degrees, microbatch and synchronous schedule; some will not build."""
    families = [family for family in FAMILIES if family.flush]
    alone = [family for family in families if family.name == "1f1b"]  # alone, every schedule is the same
    for tp, pp in product(divisors(ranks), repeat=2):
        if ranks % (tp * pp):
            continue
        dp = ranks // (tp * pp)
        for microbatch in divisors(batch // dp):
            for family in families if pp > 1 else alone:
                for chunks in range(
                    family.chunks, MODEL.layers // pp + 1 if family.chunked else family.chunks + 1
                ):
                    yield Layout(
                        tp=tp,
                        pp=pp,
                        dp=dp,
                        chunks=chunks,
                        microbatch=microbatch,
                        global_batch=batch,
                        schedule=family.name,
                        precision="fp32",
                    )


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


def report(found: Sequence[Measurement], output: Path | None, costs: CostTable, cluster: ClusterSpec) -> None:
    """Print the layouts from the fastest measured on, then the summary."""
    best = min(m.measured_seconds for m in found)
    for m in sorted(found, key=lambda m: m.measured_seconds):
        memory = f"{m.peak_bytes >> 20} MiB ({m.predicted_bytes / m.peak_bytes - 1:+.0%})"
        mark = "*" if m.recommended else " "
        print(
            f"{mark} {describe(m.layout):42} measured {m.measured_seconds * 1e3:8.1f} ms"
            f" ({m.measured_seconds / best - 1:+5.0%}) predicted {m.predicted_seconds * 1e3:8.1f} ms"
            f" ({m.error:+5.1%})  memory {memory}"
        )
    totals = summary(found) | calibrated(found, costs, cluster)
    for name, value in totals.items():
        print(f"{name:24} {value:.3f}")
    if output is not None:
        rows = [
            {
                "layout": plain(m.layout),
                "seconds": m.seconds,
                "predicted_seconds": m.predicted_seconds,
                "peak_bytes": m.peak_bytes,
            }
            for m in found
        ]
        output.write_text(json.dumps({"summary": totals, "layouts": rows, "costs": plain(costs)}))


if __name__ == "__main__":
    main()
