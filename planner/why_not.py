"""`--why-not tp=8,pp=2`: the first reason against a layout, with its numbers."""

from __future__ import annotations

from planner.pins import Pins
from planner.query import Query
from planner.search import RankedPlan
from planner.targets import find_target
from planner.verdict import compare
from profiles.errors import FieldError, InfeasibleError
from profiles.units import format_bytes, format_seconds

ENDLESS = 2**60  # bytes: a device on which everything fits


def why_not(query: Query, pins: Pins, best: RankedPlan) -> str:
    """Say why the best layout with `pins` is not the best of all.

    The pins are joined to those of the query; where they differ, they win.
    """
    asked = query.pinned(pins.values)
    name = pins.describe()
    if pins.match(best.layout):
        return f"{name}: the chosen layout is one of these."
    try:
        found = asked.run().best
    except FieldError as error:
        return f"{name}: impossible: {error}."
    except InfeasibleError as error:
        return f"{name}: {_memory(asked, str(error))}"
    layout = found.layout
    described = f"tp {layout.tp} · pp {layout.pp} · dp {layout.dp}, {layout.schedule}"
    text = f"{name}: the best of these ({described}) takes {format_seconds(found.estimate.step_seconds)}. "
    return text + compare(best.estimate, found.estimate, name="it", subject="The chosen layout")


def _memory(asked: Query, refusal: str) -> str:
    """Say how much memory the leanest of the layouts would need."""
    lean: dict[str, object] = {}
    target = find_target(asked.target)
    if "recompute" not in asked.pins and "full" in target.recomputes:
        lean["recompute"] = "full"
    if "zero" not in asked.pins:
        lean["zero"] = max(target.zeros)
    if "microbatch" not in asked.pins:
        lean["microbatch"] = 1
    try:
        found = asked.pinned(lean).with_memory(ENDLESS).run().best
    except (FieldError, InfeasibleError):
        return f"{refusal}."
    need, have = found.estimate.memory.peak_bytes, asked.cluster.device.memory_bytes
    stages = found.estimate.memory.per_stage
    rank = max(stages, key=lambda row: row.total).rank if stages else 0
    return (
        f"does not fit: even with full recomputation and microbatches of {found.layout.microbatch}, pipeline"
        f" rank {rank} needs {format_bytes(need)}, more than the {format_bytes(have)} of"
        f" {asked.cluster.device.name}."
    )
