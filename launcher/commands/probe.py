"""`cuboid probe`: find devices and links."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.console import print_json, stderr_console, stdout_console, table
from launcher.probe_view import link_rows, matrix_lines, node_lines
from planner.probe.sentence import describe_cluster
from profiles.cluster import ClusterSpec
from profiles.documents import plain, write_yaml
from profiles.errors import ConfigError

ImportOption = Annotated[
    Path | None,
    typer.Option(
        "--import",
        metavar="FILE",
        help="Read a file instead of this machine: NCCL topology XML, hwloc XML, `nvidia-smi topo -m`,"
        " `rocm-smi --showtopo`, a cluster.yaml, a snapshot, or the name of a preset.",
    ),
]
RanksOption = Annotated[
    int | None,
    typer.Option(min=1, max=65536, help="Rank slots on a machine without accelerators [one per core]."),
]

SrunOption = Annotated[
    list[str] | None,
    typer.Option("--srun", metavar="OPTION", help="With --on slurm: an option for srun; may be repeated."),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep all raw answers (host names and device UUIDs too); --import replays them.",
    ),
]


def probe(
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write cluster.yaml here.")] = None,
    import_: ImportOption = None,
    device: Annotated[
        str | None, typer.Option(help="Preset of the devices, where they are not named or not to be trusted.")
    ] = None,
    ranks: RanksOption = None,
    on: Annotated[
        Literal["local", "slurm"], typer.Option(help="Probe this machine, or nodes of a SLURM cluster.")
    ] = "local",
    nodes: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="With --on slurm: how many nodes [all of the job].")
    ] = None,
    srun: SrunOption = None,
    record: RecordOption = None,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare two files of any kind that --import reads."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Read /proc and /sys below DIR (a support archive).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find devices, links and NICs; say in a sentence what the machine is, and what could not be seen.

    Example: cuboid probe -o cluster.yaml

    Example: cuboid probe --import nccl-topo.xml --device a100-sxm4-80gb

    Example: cuboid probe --on slurm --nodes 4 --srun=--partition=main -o cluster.yaml

    Example: cuboid probe --diff monday.yaml today.yaml
    """
    from profiles.presets import device_preset  # noqa: PLC0415 (start-up time)

    if device:
        device_preset(device)  # refused here also where no device is found that it could describe
    if diff:
        if import_ or output or record or root or on == "slurm":
            raise ConfigError("--diff compares two files and takes no option but --device and --json")
        _show_difference(*diff, device=device, json=json)
        return
    if import_ and (on == "slurm" or record or root):
        raise ConfigError("--import reads a file; it cannot be joined with --on slurm, --record or --root")
    if on == "slurm":
        if record or root:
            raise ConfigError("--record and --root are for one machine; leave --on slurm out")
        from launcher.probe_slurm import probe_nodes  # noqa: PLC0415 (start-up time)

        cluster = probe_nodes(nodes=nodes, device=device, ranks=ranks, options=tuple(srun or ()))
    elif nodes or srun:
        raise ConfigError("--nodes and --srun need --on slurm")
    else:
        cluster = _one(import_, device=device, ranks=ranks, record=record, root=root)
    if output:
        write_yaml(output, cluster)
    if json:
        print_json(plain(cluster))
        return
    _show(cluster)
    if output:
        stderr_console().print(f"wrote {output}", markup=False)


def _one(
    path: Path | None, *, device: str | None, ranks: int | None, record: Path | None, root: Path | None
) -> ClusterSpec:
    if path:
        from planner.probe.imports.cluster import import_cluster  # noqa: PLC0415 (start-up time)

        return import_cluster(path, device=device, ranks=ranks)
    from planner.probe.files import LiveFiles  # noqa: PLC0415 (start-up time)
    from planner.probe.machine import live_sources  # noqa: PLC0415
    from planner.probe.snapshot import record_probe  # noqa: PLC0415

    if root and not root.is_dir():
        raise ConfigError(f"--root {root}: no such folder")
    sources = replace(live_sources(), files=LiveFiles(root=root)) if root else live_sources()
    cluster, snapshot = record_probe(ranks=ranks, device=device, sources=sources)
    if record:
        write_yaml(record, snapshot)
        stderr_console().print(f"wrote {record}", markup=False)
    return cluster


def _show(cluster: ClusterSpec) -> None:
    console = stdout_console()
    console.print(cluster.summary or describe_cluster(cluster), markup=False, style="bold", soft_wrap=True)
    topology = cluster.topology
    if topology and topology.node.devices:
        for lines in (matrix_lines(topology.node), node_lines(topology.node)):
            if lines:
                console.print()
            for line in lines:
                console.print(line, markup=False, soft_wrap=True)
    if topology and topology.switches:
        console.print()
        for switch in topology.switches:
            below = ", ".join((*switch.hosts, *switch.switches))
            console.print(f"switch {switch.name} (level {switch.level}): {below}", markup=False)
    rows = table()
    for name in ("link", "span", "a device", "latency", "from"):
        rows.add_column(name)
    for row in link_rows(cluster):
        rows.add_row(*row)
    console.print(rows)
    for note in cluster.notes:
        console.print(f"  · {note}", markup=False, soft_wrap=True)


def _show_difference(first: Path, second: Path, *, device: str | None, json: bool) -> None:
    from planner.probe.compare import difference  # noqa: PLC0415 (start-up time)
    from planner.probe.imports.cluster import import_cluster  # noqa: PLC0415

    found = difference(import_cluster(first, device=device), import_cluster(second, device=device))
    if json:
        print_json({"first": str(first), "second": str(second), "differences": found})
        return
    console = stdout_console()
    for line in found:
        console.print(line, markup=False, soft_wrap=True)
    if not found:
        console.print("no difference", markup=False)
