"""`cuboid probe`: find devices and links."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.console import print_json, stderr_console, stdout_console
from planner.probe import probe as probe_machine
from profiles.documents import plain, write_yaml
from profiles.units import format_bytes


def probe(
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write cluster.yaml here.")] = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Rank slots on a machine without accelerators [one per core].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find this machine's devices and links; say what could not be seen.

    Example: cuboid probe -o cluster.yaml
    """
    cluster = probe_machine(ranks=ranks)
    if output:
        write_yaml(output, cluster)
    if json:
        print_json(plain(cluster))
        return
    console = stdout_console()
    device = cluster.device
    console.print(
        f"{cluster.devices_per_node} rank slot(s) × {format_bytes(device.memory_bytes)} on"
        f" {cluster.cores_per_node} core(s) of {device.name}, joined by shared memory",
        markup=False,
    )
    for note in cluster.notes:
        console.print(f"  · {note}", markup=False)
    if output:
        stderr_console().print(f"wrote {output}", markup=False)
