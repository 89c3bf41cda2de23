"""`cuboid probe --on slurm`: probe every node of an allocation in one step, compare, and merge."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.console import stderr_console
from launcher.probe_node import MARK, MAX_ANSWER_BYTES
from planner.probe.merge import expand_hosts, merge_nodes, parse_switches
from profiles.cluster import ClusterSpec
from profiles.documents import validate
from profiles.errors import ConfigError, DependencyError, FieldError, RunError
from profiles.topology import SwitchSpec

_LINE = re.compile(rf"^\s*(?:\d+:\s*)?{MARK} (\S+) (?:begin|(\d+)/(\d+) (\S+))\s*$", re.M)
SCONTROL_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What came home, by node: its cluster of one, the switches above it, or why there is no answer."""

    clusters: dict[str, ClusterSpec]
    switch_paths: dict[str, str]
    failed: dict[str, str]


def probe_nodes(
    *, nodes: int | None, device: str | None, ranks: int | None, options: Sequence[str] = ()
) -> ClusterSpec:
    """Run the probe on `nodes` nodes (default: all of the job this runs in) and return them as one cluster.

    Raises:
        ConfigError: for options that srun must not get, or without a number of nodes outside a job.
        DependencyError: when SLURM is not installed here.
        RunError: when no node answers, with SLURM's own words.
    """
    words = step_command(nodes=nodes, device=device, ranks=ranks, options=options)
    if shutil.which("srun") is None:
        raise DependencyError("srun is not installed here; run this on a login node of the cluster")
    stderr_console().print(f"probing {nodes or 'all'} node(s): {' '.join(words)}", markup=False, style="dim")
    done = _run(words)
    answers = collect(done.stdout)
    failed = dict(answers.failed)
    for host in re.findall(r"^srun: error: ([\w.-]+): task", done.stderr, re.M):
        failed.setdefault(host, "its task failed")
    for host in expand_hosts(os.environ.get("SLURM_JOB_NODELIST", "")) if nodes is None else ():
        if host not in answers.clusters:
            failed.setdefault(host, "no answer")
    if not answers.clusters:
        told = done.stderr.strip().splitlines()
        raise RunError(f"no node answered: {told[-1] if told else f'srun ended with {done.returncode}'}")
    names = sorted(answers.clusters, key=_natural)
    merged = merge_nodes({name: answers.clusters[name] for name in names}, switches=_switches(answers))
    lost = tuple(f"{host} did not answer: {why}" for host, why in sorted(failed.items()))
    return merged.model_copy(update={"notes": (*lost, *merged.notes)})


def step_command(
    *, nodes: int | None, device: str | None, ranks: int | None, options: Sequence[str] = ()
) -> list[str]:
    """Return the srun command: one task on every node, each of which may fail alone.

    Raises:
        ConfigError: as `probe_nodes`.
    """
    inside = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES")
    count = nodes or (int(inside) if inside and inside.isdecimal() else None)
    if count is None:
        raise ConfigError("--on slurm outside a job needs --nodes N")
    for option in options:
        if not option.startswith("-") or not option.isprintable():
            raise ConfigError(f"--srun {option!r}: must be an option such as --srun=--partition=main")
    words = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
    words += ["--label", "--kill-on-bad-exit=0", "--job-name=cuboid-probe"]
    # Inside a job another step, such as an interactive shell, may hold the processors.
    words += [*(["--overlap"] if inside else []), *options]
    words += [sys.executable, "-m", "launcher.probe_node"]
    words += [f"--device={device}"] if device else []
    words += [f"--ranks={ranks}"] if ranks else []
    return words


def collect(output: str) -> Answers:
    """Read the lines of all nodes, in whatever order they came."""
    pieces: dict[str, dict[int, str]] = {}
    totals: dict[str, int] = {}
    for host, number, total, data in _LINE.findall(output):
        parts = pieces.setdefault(host, {})
        if number:
            parts[int(number)] = data
            totals[host] = int(total)
    clusters: dict[str, ClusterSpec] = {}
    paths: dict[str, str] = {}
    failed: dict[str, str] = {}
    for host, parts in pieces.items():
        total = totals.get(host, 0)
        if not total or set(parts) != set(range(1, total + 1)):
            failed[host] = "the probe did not finish there"
            continue
        try:
            answer = _decode("".join(parts[i] for i in range(1, total + 1)))
            clusters[host] = validate(ClusterSpec, answer["cluster"])
        except (ValueError, KeyError, TypeError, zlib.error, binascii.Error, FieldError) as error:
            failed[host] = f"its answer cannot be read ({error})"
            continue
        path = answer.get("switches")
        if isinstance(path, str):
            paths[host] = path
    return Answers(clusters=clusters, switch_paths=paths, failed=failed)


def _decode(text: str) -> dict[str, object]:
    packed = zlib.decompressobj()
    data = packed.decompress(base64.b64decode(text, validate=True), MAX_ANSWER_BYTES)
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("not a mapping")
    return answer


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run srun to its end; on interruption SLURM gets the time to end the step."""
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, errors = process.communicate()
        except KeyboardInterrupt:
            process.terminate()
            raise
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def _switches(answers: Answers) -> tuple[SwitchSpec, ...]:
    """Return SLURM's switches: as its controller knows them, else as the tasks saw them."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "topology"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SCONTROL_SECONDS,
            check=False,
        )
        found = parse_switches(done.stdout)
    except (OSError, subprocess.TimeoutExpired):
        found = ()
    if found:
        return found
    leaves: dict[str, list[str]] = {}
    for host, path in answers.switch_paths.items():
        leaves.setdefault(path.rsplit(".", 1)[-1], []).append(host)
    return tuple(SwitchSpec(name=name, hosts=tuple(sorted(hosts))) for name, hosts in sorted(leaves.items()))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort n2 before n10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", name)]
