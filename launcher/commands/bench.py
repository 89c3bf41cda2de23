"""`cuboid bench`: measure layer and collective costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.console import print_json, stderr_console
from profiles.documents import require_writable, write_text
from profiles.errors import ConfigError

if TYPE_CHECKING:
    from planner.bench import BenchProgress
    from profiles.cluster import ClusterSpec, Precision
    from profiles.costs import CostTable

PLAIN_LINE_SECONDS = 5.0

ImportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        help="Take collectives from text that nccl-tests printed, measuring nothing; repeat for several.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE", help="Preset or cluster.yaml to compare with [this machine, if measured]."
    ),
]


def bench(
    *,
    model: Annotated[str, typer.Option(help="Preset name, or a config.json or YAML file.")],
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes that work at once [one per device or core].")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Time to spend.")] = 60.0,
    microbatch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Microbatch size to measure; repeat for several [1 2 4 8]."),
    ] = None,
    tp: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tensor-parallel degree to measure; repeat for several [all that fit]."),
    ] = None,
    seq_len: Annotated[int | None, typer.Option(min=1, help="Sequence length [the model's].")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 … [bf16 on accelerators, else fp32].")
    ] = None,
    sequence_parallel: Annotated[
        bool, typer.Option("--sequence-parallel", help="Measure sequence-parallel layers too.")
    ] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Measure recomputation too.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the costs go.")] = Path("costs.yaml"),
    import_file: ImportOption = None,
    cluster: ClusterOption = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the costs here.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew instead of going on.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what this model's layers and messages cost here, with all ranks working at once.

    The costs are written as they grow; an interrupted measurement goes on from its output, and a second
    precision is added to it. Between measured sizes `cuboid plan --costs` interpolates, and says so.

    Example: cuboid bench --model bytes-1m --ranks 4 --seconds 30 -o costs.yaml --svg costs.svg
             cuboid bench --model gpt3-22b --cluster dgx-h100 --import all_reduce_perf.txt -o costs.yaml
    """
    from planner.bench import measure  # noqa: PLC0415 (start-up time)
    from planner.probe import probe  # noqa: PLC0415
    from profiles.presets import load_cluster, load_model  # noqa: PLC0415

    spec = load_model(model)
    expected = load_cluster(cluster) if cluster else None
    for path in filter(None, (output, svg)):
        require_writable(path)
    if import_file:
        from launcher.bench_import import import_collectives  # noqa: PLC0415

        table = import_collectives(import_file, spec, expected, output)
    else:
        here = probe()
        expected = expected or here
        with progress_line(seconds) as report, _interruption_told(output):
            table = measure(
                spec,
                ranks=ranks or here.devices_per_node,
                seconds=seconds,
                microbatches=microbatch or (1, 2, 4, 8),
                seq_len=seq_len,
                tensor_parallel=tp,
                precision=_precision(precision, here),
                sequence_parallel=sequence_parallel,
                recompute=recompute,
                cluster=here,
                output=output,
                fresh=fresh,
                progress=report,
            )
    _show(table, expected, output, svg=svg, json=json)


def _show(
    table: CostTable, cluster: ClusterSpec | None, output: Path, *, svg: Path | None, json: bool
) -> None:
    from launcher.bench_report import costs_document, print_costs  # noqa: PLC0415 (start-up time)

    written = [output]
    if svg:
        from launcher.drawing.costs_svg import costs_svg  # noqa: PLC0415

        write_text(svg, costs_svg(table))
        written.append(svg)
    if json:
        print_json(costs_document(table, cluster))
        return
    print_costs(table, cluster)
    stderr_console().print(f"wrote {', '.join(map(str, written))}", markup=False)


@contextmanager
def _interruption_told(output: Path) -> Iterator[None]:
    """Say on Ctrl-C what is left of the measurement."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{output} holds what was measured" if output.exists() else "nothing was measured yet"
        stderr_console().print(
            f"interrupted: {kept}; the same command goes on from there", markup=False, soft_wrap=True
        )
        raise


def _precision(name: str | None, cluster: ClusterSpec) -> Precision:
    if name is None:
        return "fp32" if cluster.device.vendor == "cpu" else "bf16"
    known: tuple[Precision, ...] = ("fp64", "fp32", "tf32", "bf16", "fp16")
    for precision in known:
        if name == precision:
            return precision
    raise ConfigError(f"--precision: '{name}' is not known; use {', '.join(known)}")


@contextmanager
def progress_line(seconds: float) -> Iterator[Callable[[BenchProgress], None]]:
    """Show a measurement's progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    console = stderr_console()
    columns = (
        TextColumn("bench"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting the ranks", total=seconds)
        next_line = time.monotonic()

        def report(progress: BenchProgress) -> None:
            nonlocal next_line
            bar.update(task, completed=seconds - progress.seconds_left, description=progress.text)
            if not console.is_terminal and time.monotonic() >= next_line:
                next_line = time.monotonic() + PLAIN_LINE_SECONDS
                left = f"{progress.seconds_left:.0f} s left" if progress.seconds_left > 0 else "past its time"
                console.print(f"bench: {left}, {progress.text}", markup=False)

        yield report
