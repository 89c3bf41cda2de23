"""`cuboid export`: a plan as another framework's configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher.console import print_json, stderr_console
from launcher.export import EXPORTERS, Export
from planner.plan import load_plan
from profiles.documents import write_text
from profiles.errors import ConfigError


def export(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.yaml, by hand or from `cuboid plan`.")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(e.name for e in EXPORTERS)}.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the files.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a plan as another framework's configuration, and say what of it is not carried over.

    Without -o the main file goes to stdout.

    Example: cuboid export plan.yaml --to megatron > megatron.sh
             cuboid export plan.yaml --to torchtitan -o job/
    """
    exporter = next((e for e in EXPORTERS if e.name == to), None)
    if exporter is None:
        raise ConfigError(f"--to '{to}' is not known; use {', '.join(e.name for e in EXPORTERS)}")
    result = exporter.export(load_plan(plan))
    if output is not None:
        if not output.is_dir():
            raise ConfigError(f"{output}: not a folder; create it first")
        for name, text in result.files.items():
            write_text(output / name, text)
    if json:
        print_json(
            {
                "target": result.target,
                "framework": result.framework,
                "status": result.status,
                "losses": list(result.losses),
                "notes": list(result.notes),
                "files": result.files,
            }
        )
        return
    if output is None:
        sys.stdout.write(next(iter(result.files.values())))
    _remark(result, output)


def _remark(result: Export, output: Path | None) -> None:
    console = stderr_console()
    console.print(f"{result.framework}: {result.status}")
    for loss in result.losses:
        console.print(f"  not carried over: {loss}", markup=False)
    for note in result.notes:
        console.print(f"  note: {note}", markup=False)
    names = list(result.files)
    if output is not None:
        console.print(f"wrote {', '.join(str(output / name) for name in names)}", markup=False)
    elif len(names) > 1:
        console.print(f"  also: {', '.join(names[1:])} (written with -o FOLDER)", markup=False)
