"""The options of `cuboid schedule`: the numbers of the schedules, and what to make of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from profiles.errors import ConfigError

# Of each group a command takes one at most: they show different things, or write the same place.
_EXCLUSIVE = (
    ("--frontier", "--heatmap", "--measure", "--csv"),
    ("--json", "--csv"),
    ("--trace", "--frontier", "--heatmap"),
)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How large the schedules are and how long everything takes."""

    stages: Annotated[int | None, typer.Option(min=1, help="Pipeline ranks, p.")] = None
    microbatches: Annotated[int | None, typer.Option(min=1, help="Microbatches per step, m.")] = None
    chunks: Annotated[
        int | None, typer.Option(min=1, help="Stages per rank; the family's own number if left out.")
    ] = None
    steps: Annotated[int, typer.Option(min=1, help="Steps of an asynchronous family.")] = 1
    times: Annotated[
        str | None,
        typer.Option(
            help="Seconds of all of a rank's layers for one microbatch, F=1,I=1,W=1 if left out; B = I + W."
            " F=1:2:1:1 gives one per rank, or one per stage for that stage alone."
        ),
    ] = None
    comm: Annotated[
        str, typer.Option(help="Seconds of one transfer, or latency=1e-5,bytes=4e6,bandwidth=2e10.")
    ] = "0"
    blocking: Annotated[
        bool, typer.Option("--blocking", help="A send holds its rank until the receiver has the data.")
    ] = False
    memory_limit: Annotated[
        float | None, typer.Option(help="Most microbatches a rank may hold, through all of its layers.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is shown, and what is written."""

    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier", help="Least bubble for each memory limit, beside the named families or all."
        ),
    ] = False
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Bubble fraction over ranks and microbatches.")
    ] = False
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Run it on local ranks whose stages wait (20 ms, or --times) instead of computing.",
        ),
    ] = False
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False
    csv: Annotated[bool, typer.Option("--csv", help="torch.distributed.pipelining's CSV form on stdout.")] = (
        False
    )
    svg: Annotated[
        Path | None, typer.Option(help="Write the timelines, frontier or heat map as a picture.")
    ] = None
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace.")] = None

    def __post_init__(self) -> None:
        """Refuse two options of which only one would be heeded.

        Raises:
            ConfigError: naming both.
        """
        given = {
            "--frontier": self.frontier,
            "--heatmap": self.heatmap,
            "--measure": self.measure,
            "--json": self.json,
            "--csv": self.csv,
            "--trace": self.trace is not None,
        }
        for group in _EXCLUSIVE:
            first, *others = [option for option in group if given[option]] or [""]
            if others:
                raise ConfigError(f"{first} and {others[0]} exclude each other; leave one of them out")
