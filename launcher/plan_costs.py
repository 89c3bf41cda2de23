"""The cost table that a plan was priced with: named in the plan, and taken again when it is priced again."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.console import stderr_console
from planner.plan import Plan
from profiles.costs import CostTable
from profiles.documents import read_document

_KEY = "costs"  # in `Plan.provenance`


def origin(costs: Path | None, plan: Path) -> dict[str, str]:
    """Return what a plan at `plan` keeps about the file of `costs`: where it lies, seen from the plan."""
    return {} if costs is None else {_KEY: os.path.relpath(costs, plan.parent)}


def costs_of(plan: Plan, path: Path, costs: Path | None) -> CostTable | None:
    """Return the table of `costs`, or else the one that the plan at `path` was priced with.

    Says so on stderr where that one is gone: the prices are then others than the plan's own.

    Raises:
        ConfigError: when the file is no cost table.
    """
    if costs is None and _KEY in plan.provenance:
        costs = path.parent / plan.provenance[_KEY]
        if not costs.is_file():
            stderr_console().print(
                f"note: {path} was priced with {costs}, which is not there; presets are used, so the numbers"
                " differ from the plan's own (--costs FILE names another table)",
                markup=False,
            )
            costs = None
    return None if costs is None else read_document(costs).read(CostTable)
