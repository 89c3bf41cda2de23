"""Measure layer and collective costs: starts the runtime's bench as a process, reads back the CostTable."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from planner.probe import probe
from profiles.bench_request import BenchRequest
from profiles.cluster import ClusterSpec, Precision
from profiles.costs import CostTable
from profiles.documents import read_document, write_yaml
from profiles.errors import ConfigError, DependencyError, RunError
from profiles.model import ModelSpec

GRACE_SECONDS = 10.0
LAST_LINES = 30
_PROGRESS = re.compile(r"bench:\s+([0-9.]+) s left, (.*)")


@dataclass(frozen=True, kw_only=True)
class BenchProgress:
    """Where a measurement stands: the seconds left of its time, and the point being measured."""

    seconds_left: float
    text: str


def measure(
    model: ModelSpec,
    *,
    ranks: int,
    seconds: float,
    microbatches: Sequence[int] = (1, 2, 4, 8),
    seq_len: int | None = None,
    tensor_parallel: Sequence[int] | None = None,
    precision: Precision = "fp32",
    cluster: ClusterSpec | None = None,
    output: Path | None = None,
    sequence_parallel: bool = False,
    recompute: bool = False,
    fresh: bool = False,
    progress: Callable[[BenchProgress], None] | None = None,
) -> CostTable:
    """Measure `model` with `ranks` processes working at once for about `seconds`.

    `tensor_parallel` None: every degree that divides the ranks and heads. `seq_len` takes the place of the
    model's. `cluster` None: this machine is probed. `sequence_parallel` and `recompute` add those variants.
    With `output` the table is kept as it grows, and an earlier one is gone on from unless `fresh`.

    Raises:
        ConfigError: for a request that cannot be measured.
        DependencyError: without torch.
        RunError: when a rank fails.
        KeyboardInterrupt: on Ctrl-C, once no process is left.
    """
    if find_spec("torch") is None:
        raise DependencyError("bench needs torch; in Cuboid's folder: pip install '.[runtime]'")
    cluster = cluster or probe()
    if seq_len is not None:  # as `plan` has it: costs are of a model at one sequence length
        model = model.model_copy(update={"seq_len": seq_len})
    request = BenchRequest(
        model=model,
        ranks=ranks,
        seconds=seconds,
        microbatches=tuple(sorted(set(microbatches))),
        tensor_parallel=tuple(tensor_parallel or tensor_parallel_degrees(model, ranks)),
        seq_len=model.seq_len,
        precision=precision,
        sequence_parallel=sequence_parallel,
        recompute=recompute,
        threads=max(1, (cluster.cores_per_node or 1) // ranks),
        cores=cluster.cores_per_node,
        machine=cluster.name,
        device=cluster.device.name,
    )
    with tempfile.TemporaryDirectory(prefix="cuboid-bench-") as folder:
        path = Path(folder) / "request.yaml"
        write_yaml(path, request)
        table = output or Path(folder) / "costs.yaml"
        _run(path, table, fresh=fresh, progress=progress)
        return load_costs(table)


def tensor_parallel_degrees(model: ModelSpec, ranks: int) -> tuple[int, ...]:
    """Return the degrees that divide the ranks, the heads of both kinds and the MLP's width."""
    counts = (ranks, model.heads, model.kv_heads, model.ffn_hidden)
    return tuple(degree for degree in range(1, ranks + 1) if all(count % degree == 0 for count in counts))


def load_costs(path: Path) -> CostTable:
    """Read a CostTable.

    Raises:
        ConfigError: with the position of the first wrong value.
    """
    return read_document(path).read(CostTable)


def _run(
    request: Path, output: Path, *, fresh: bool, progress: Callable[[BenchProgress], None] | None
) -> None:
    words = [sys.executable, "-m", "runtime.bench", "--request", str(request), "--output", str(output)]
    words += ["--parent", str(os.getpid())]
    if fresh:
        words.append("--fresh")
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches it through us, once
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = _PROGRESS.match(line)
            if not found:
                last.append(line.rstrip())
            elif progress:
                progress(BenchProgress(seconds_left=float(found[1]), text=found[2]))
        code = process.wait()
    finally:
        _end(process)
    if code == ConfigError.exit_code:
        raise ConfigError(last[-1].removeprefix("bench: ") if last else "the bench refused the request")
    if code:
        raise RunError("the bench failed:\n" + "\n".join(last))


def _end(process: subprocess.Popen[str]) -> None:
    """End the bench: SIGTERM, on which it ends its ranks, then SIGKILL to its whole session."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stderr:
        process.stderr.close()
