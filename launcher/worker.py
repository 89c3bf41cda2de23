"""The worker script: what one task of a job does. On SLURM and on this machine it is the same one.

It starts one rank, sends what the rank writes to logs/rank-R.log, and writes down how it ended in
launch/ranks/ATTEMPT/rank-R.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.shell import shell_template

TRAIN_COMMAND = '"$python" -P -m runtime.train'

# Diagnostics that cost nothing, under the names that torch has used since 2.8; it warns of older ones.
DIAGNOSTICS = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_FR_BUFFER_SIZE": "2000",
}


def render_worker(*, run: Path, python: str, ranks_per_node: int, variables: Mapping[str, str]) -> str:
    """Return the text of the worker script; `variables` are what its ranks find in their environment."""
    return shell_template("worker.sh.j2").render(
        run=str(run),
        python=python,
        ranks_per_node=ranks_per_node,
        train_command=TRAIN_COMMAND,
        exports=list(variables.items()),
    )


def worker_variables(*, run: Path, cores: int, ranks_per_node: int) -> dict[str, str]:
    """Return what every rank finds in its environment unless the site or the job says otherwise.

    `cores` of a node are shared by `ranks_per_node` ranks, since spinning threads stall all of them.
    """
    return {
        **DIAGNOSTICS,
        "OMP_NUM_THREADS": str(max(1, cores // ranks_per_node)),
        "NCCL_DEBUG_FILE": str(run / "logs" / "nccl-%h-%p.log"),
        "TORCH_FR_DUMP_TEMP_FILE": str(run / "logs" / "flight-recorder-"),
    }
