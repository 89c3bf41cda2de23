"""`cuboid demo`: the whole loop on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.launch import train
from launcher.commands.report import show_rows
from launcher.compare import compare
from launcher.console import print_json, stderr_console, stdout_console
from launcher.local import require_torch
from launcher.preflight.job import check_data
from launcher.run_directory import RunDirectory, check_name, create_run, free_name
from planner.job import DataSpec, Job, OptimizerSpec
from planner.plan import Plan
from profiles.documents import dump_yaml, plain, require_writable
from profiles.errors import ConfigError
from profiles.presets import model_preset
from profiles.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from planner.search import SearchResult
    from profiles.cluster import ClusterSpec, Precision
    from profiles.costs import CostTable
    from profiles.model import ModelSpec

MODEL = "bytes-3m"
PRECISION: Precision = "fp32"
GLOBAL_BATCH = 16
MICROBATCHES = (1, 2, 4, 8)
BENCH_SHARE, TRAIN_SHARE = 0.25, 0.4  # of the time given; the rest is the start-up of processes
FEWEST_STEPS, MOST_STEPS = 20, 500


def demo(
    ranks: Annotated[int, typer.Option(min=1, max=64, help="Ranks; more than cores share the cores.")] = 4,
    data: Annotated[Path | None, typer.Option(help="Text file or folder; default: Python's manual.")] = None,
    seconds: Annotated[float, typer.Option(min=30, help="About how long all of it may take.")] = 120,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: demo, demo-2 …")] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Probe this machine, measure it, plan, train on real text, and compare with the prediction.

    Example: cuboid demo --ranks 4 --data ~/notes
    """
    require_torch()
    model = model_preset(MODEL)
    corpus = DataSpec(path=str(data.absolute()) if data else None)
    check_data(corpus, model)
    name = check_name(name or free_name(runs, "demo"))
    if (runs / name).exists():
        raise ConfigError(f"{runs / name}: exists already; choose another --name")
    root = runs.absolute()
    require_writable(next(folder for folder in (root, *root.parents) if folder.exists()) / name)
    console = stderr_console() if json else stdout_console()
    cluster = _probe(console, ranks)
    ranks = min(ranks, cluster.devices)
    costs = _bench(console, model, cluster, ranks, seconds * BENCH_SHARE)
    found = _plan(console, model, cluster, costs, ranks)
    run = _create(runs, name, found, model, cluster, costs, corpus, seconds * TRAIN_SHARE)
    with _section(console, "train", "torchrun executes the schedule that was priced"):
        train(run, resume=False, console=console)
    rows = compare(run.plan().estimate, run.record())
    if json:
        print_json({"run": str(run.path), "rows": [row.data() for row in rows]})
        return
    with _section(console, "report", "predicted against measured"):
        show_rows(rows, title=str(run.path))
    console.print(
        f"Kept in {run.path}. Look closer: cuboid report {run.path} --html report.html", markup=False
    )


def _probe(console: Console, ranks: int) -> ClusterSpec:
    from planner.probe import probe  # noqa: PLC0415 (start-up time of --help)

    with _section(console, "probe", "what is this machine?"):
        cluster = probe()
        if cluster.device.vendor == "cpu":
            cluster = probe(ranks=ranks)
            console.print(
                f"{cluster.cores_per_node} cores of {cluster.device.name}, shared by {ranks} ranks of"
                f" {format_bytes(cluster.device.memory_bytes)} each"
            )
        else:
            console.print(f"{cluster.devices_per_node} × {cluster.device.name}")
        for note in cluster.notes:
            console.print(f"· {note}", style="dim", markup=False)
    return cluster


def _bench(console: Console, model: ModelSpec, cluster: ClusterSpec, ranks: int, seconds: float) -> CostTable:
    from launcher.commands.bench import progress_line  # noqa: PLC0415 (start-up time of --help)
    from planner.bench import measure  # noqa: PLC0415

    what = f"{format_count(model.parameters)} parameters, {ranks} ranks at once"
    with _section(console, "bench", what), progress_line(seconds) as progress:
        costs = measure(
            model,
            ranks=ranks,
            seconds=seconds,
            microbatches=MICROBATCHES,
            precision=PRECISION,
            cluster=cluster,
            progress=progress,
        )
        console.print(f"{len(costs.layers)} layer and {len(costs.collectives)} collective costs measured")
    return costs


def _plan(
    console: Console, model: ModelSpec, cluster: ClusterSpec, costs: CostTable, ranks: int
) -> SearchResult:
    from launcher.plan_view import show  # noqa: PLC0415 (start-up time of --help)
    from planner.search import search  # noqa: PLC0415

    with _section(console, "plan", f"tp × pp × dp, microbatch and schedule for {ranks} ranks"):
        found = search(
            model,
            cluster,
            devices=ranks,
            global_batch=GLOBAL_BATCH,
            costs=costs,
            pins={"precision": PRECISION, "recompute": "none"},
            idle=False,
        )
        show(found, model, cluster, ranks, console=console)
    return found


def _create(
    runs: Path,
    name: str,
    found: SearchResult,
    model: ModelSpec,
    cluster: ClusterSpec,
    costs: CostTable,
    corpus: DataSpec,
    train_seconds: float,
) -> RunDirectory:
    best = found.best
    steps = round(train_seconds / best.estimate.step_seconds)
    job = Job(
        name=name,
        plan=Plan(model=model, cluster=cluster, layout=best.layout, estimate=best.estimate),
        data=corpus,
        steps=min(MOST_STEPS, max(FEWEST_STEPS, steps)),
        optimizer=OptimizerSpec(learning_rate=3e-3, final_learning_rate=3e-4),
    )
    files = {"cluster.yaml": dump_yaml(plain(cluster)), "costs.yaml": dump_yaml(plain(costs))}
    return create_run(runs, job, files=files)


@contextmanager
def _section(console: Console, name: str, what: str) -> Iterator[None]:
    console.print(f"\n[bold cyan]{name}[/]  {what}")
    started = time.monotonic()
    yield
    console.print(f"[dim]{name} took {format_seconds(time.monotonic() - started)}[/]")
