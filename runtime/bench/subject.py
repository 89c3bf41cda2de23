"""What a table was measured on and with; torch is not imported, so that a wrong output is refused at once."""

from __future__ import annotations

import platform
from importlib.metadata import version

from profiles.bench_request import BenchRequest
from profiles.costs import CostTable
from profiles.errors import ConfigError


def software_versions() -> dict[str, str]:
    """Return the versions that a table names."""
    return {"torch": version("torch"), "python": platform.python_version()}


def check_subject(known: CostTable, request: BenchRequest, *, where: str) -> None:
    """Refuse to go on from a table of something else.

    Raises:
        ConfigError: when it measured another model, machine, software or number of ranks, or was calibrated.
    """
    same = (
        known.model == request.model
        and known.machine == request.machine
        and known.device == request.device
        and known.concurrent_ranks == request.ranks
        and known.cores == request.cores
        and known.software.get("torch") == version("torch")
    )
    if not same:
        raise ConfigError(
            f"{where}: holds measurements of another model or sequence length, another machine, torch"
            " or number of ranks; choose another output, or measure anew with --fresh"
        )
    if known.calibration is not None:
        raise ConfigError(
            f"{where}: was calibrated by runs, which fresh measurements would mix with;"
            " choose another output, or measure anew with --fresh"
        )
