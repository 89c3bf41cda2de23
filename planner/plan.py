"""plan.yaml: a model, a cluster, a layout and, when priced, the estimate.

A plan may name its model and cluster by preset or file, or spell them out. `resolve` turns the names into
specs; a resolved plan carries everything and no longer depends on where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from planner.estimate import Estimate
from planner.layout import Layout, check_layout
from planner.layout_schedule import (
    names_file,
    read_schedule_file,
    schedule_of,
    with_schedule,
)
from planner.schedules import ScheduleError, check, find_family
from planner.schedules.named import require_chunks
from profiles.cluster import ClusterSpec
from profiles.documents import Document, Record, read_document, validate, write_yaml
from profiles.errors import FieldError
from profiles.model import ModelSpec
from profiles.presets import resolve_cluster, resolve_model

Result = TypeVar("Result")


class Plan(Record):
    """A resolved plan: specs in full, so it can be read anywhere."""

    kind: Literal["plan"] = "plan"
    version: Literal[1] = 1
    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    estimate: Estimate | None = None
    provenance: dict[str, str] = Field(default_factory=dict)


class _PlanFile(Record):
    kind: Literal["plan"]
    version: Literal[1] = 1
    model: dict[str, Any]
    cluster: dict[str, Any]
    layout: dict[str, Any]
    estimate: Estimate | None = None
    provenance: dict[str, str] = Field(default_factory=dict)


def load_plan(path: Path) -> Plan:
    """Read a plan, by hand or by `cuboid plan`, and resolve its model and cluster.

    Raises:
        ConfigError: with file, line and column of the first field that is wrong, the layout checked
            against the model and the cluster included.
    """
    return plan_from(read_document(path))


def plan_from(document: Document) -> Plan:
    """Resolve a plan document; see `load_plan`."""
    return document.check(lambda: plan_from_data(document.data, document.folder))


def plan_from_data(data: Any, folder: Path) -> Plan:
    """Resolve plain plan data whose file names are relative to `folder`.

    Raises:
        FieldError: at the first wrong field.
    """
    raw = validate(_PlanFile, data)
    model = _at("model", lambda: resolve_model(raw.model, folder))
    cluster = _at("cluster", lambda: resolve_cluster(raw.cluster, folder))
    layout = _at("layout", lambda: _layout(raw.layout, folder))
    _at("layout", lambda: check_layout(layout, model))
    if layout.world_size > cluster.devices:
        raise FieldError(
            ("layout",),
            f"tp · pp · dp = {layout.tp} · {layout.pp} · {layout.dp} = {layout.world_size} ranks,"
            f" the cluster has {cluster.devices} devices",
        )
    return Plan(model=model, cluster=cluster, layout=layout, estimate=raw.estimate, provenance=raw.provenance)


def _layout(data: dict[str, Any], folder: Path) -> Layout:
    """Read a layout; a schedule of its own, spelled out or in a file, is proved and must match it."""
    name = data.get("schedule")
    if isinstance(name, str) and names_file(name):
        rest = {key: value for key, value in data.items() if key != "schedule"}
        return with_schedule(validate(Layout, rest), read_schedule_file(folder / name), name=name)
    layout = validate(Layout, data)
    if layout.actions is None:
        _require_family(layout)
    else:
        schedule = schedule_of(layout)
        check(schedule)
        layout = with_schedule(layout, schedule, name="actions")
    return layout


def _require_family(layout: Layout) -> None:
    """Refuse a schedule that does not exist, or not with so many chunks."""
    try:
        family = find_family(layout.schedule)
    except ScheduleError as error:
        raise FieldError(("schedule",), str(error)) from None
    try:
        require_chunks(family, layout.chunks)
    except ScheduleError as error:
        raise FieldError(("chunks",), str(error)) from None


def save_plan(path: Path, plan: Plan) -> None:
    """Write a plan atomically."""
    write_yaml(path, plan)


def _at(name: str, build: Callable[[], Result]) -> Result:
    try:
        return build()
    except FieldError as error:
        raise FieldError((name, *error.path), error.message) from None
