"""Fold what nccl-tests printed into a cost table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.nccl_tests import measured_on, operation_of, parse_nccl_tests
from profiles.cluster import ClusterSpec
from profiles.costs import CollectiveCost, CostTable
from profiles.documents import read_document, write_yaml
from profiles.errors import ConfigError
from profiles.model import ModelSpec


def import_collectives(
    paths: Sequence[Path], model: ModelSpec, cluster: ClusterSpec | None, output: Path
) -> CostTable:
    """Read the collectives of `paths` into the table at `output`, which is made if it is missing.

    A new table is of the machine and device that `cluster` is, else of those that the output names.

    Raises:
        ConfigError: for a file that is not such text.
    """
    found: list[CollectiveCost] = []
    machine: str | None = None
    device: str | None = None
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        found += parse_nccl_tests(text, name=str(path), operation=operation_of(path.name))
        host, name = measured_on(text)
        machine, device = machine or host, device or name
    if output.exists():
        table = read_document(output).read(CostTable)
    else:
        table = CostTable(
            machine=cluster.name if cluster else machine or "not told",
            device=cluster.device.name if cluster else device or "not told",
            model=model,
            concurrent_ranks=max(cost.ranks * cost.groups for cost in found),
        )
    shapes = {_shape(cost) for cost in found}
    kept = [cost for cost in table.collectives if _shape(cost) not in shapes]
    note = f"collectives of {', '.join(path.name for path in paths)} come from nccl-tests"
    table = table.model_copy(
        update={"collectives": (*kept, *found), "notes": tuple(dict.fromkeys((*table.notes, note)))}
    )
    write_yaml(output, table)
    return table


def _shape(cost: CollectiveCost) -> tuple[str, int, int, int]:
    """All sizes of one shape come from one source: two would not lie on one line."""
    return (cost.operation, cost.ranks, cost.groups, cost.stride)
