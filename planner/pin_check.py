"""Pins that no layout can meet are refused before the search, at the field that is wrong."""

from __future__ import annotations

from planner.layout import Layout, check_layout
from planner.pins import Pins
from planner.schedules.families import find_family
from planner.schedules.family import Family, ScheduleError
from planner.targets import Target, check_tie
from profiles.errors import FieldError
from profiles.model import ModelSpec


def check_pins(model: ModelSpec, pins: Pins, *, devices: int, global_batch: int, target: Target) -> None:
    """Refuse a pin that cannot be met by any layout of `model` for `target`.

    Raises:
        FieldError: at the pin, with what would do.
    """
    tp, pp, dp = (pins.get(axis) or 1 for axis in ("tp", "pp", "dp"))
    microbatch = pins.get("microbatch") or 1
    family = None if pins.get("schedule") is None else _family(pins.get("schedule"))
    chunks = pins.get("chunks") or (family.chunks if family else 1)
    parallel = bool(pins.get("sequence_parallel"))
    check_layout(Layout(tp=tp, pp=pp, chunks=chunks, global_batch=1, sequence_parallel=parallel), model)
    if parallel and pins.get("tp") == 1:
        raise FieldError(
            ("sequence_parallel",), "tp = 1 has no ranks to split a sequence over; use tp = 2 on"
        )
    if tp * pp * dp > devices:
        raise FieldError(("tp",), f"tp · pp · dp = {tp} · {pp} · {dp} = {tp * pp * dp} of {devices} devices")
    if global_batch % (dp * microbatch):
        field = "dp" if global_batch % dp else "microbatch"
        raise FieldError(
            (field,), f"dp · microbatch = {dp} · {microbatch} does not divide the global batch {global_batch}"
        )
    if family is not None:
        _check_schedule(family, pins, model, target)
    _check_target(pins, target)


def _family(name: str) -> Family:
    try:
        return find_family(name)
    except ScheduleError as error:
        raise FieldError(("schedule",), str(error)) from None


def _check_schedule(family: Family, pins: Pins, model: ModelSpec, target: Target) -> None:
    if not family.flush:
        check_tie(family.name, model, target)
    if target.schedules is not None and family.name not in target.schedules:
        raise FieldError(("schedule",), f"{target.framework} does not run '{family.name}'")
    chunks = pins.get("chunks")
    if chunks is None or chunks == family.chunks or (family.chunked and chunks > family.chunks):
        return
    least = (
        f"{family.chunks} chunks or more"
        if family.chunked
        else f"{family.chunks} chunk{'s' * (family.chunks > 1)}"
    )
    raise FieldError(("chunks",), f"a rank of {family.name} holds {least}, not {chunks}")


def _check_target(pins: Pins, target: Target) -> None:
    """Refuse what the target cannot run, whatever the other fields are."""
    for field, allowed in (
        ("zero", target.zeros),
        ("precision", target.precisions),
        ("recompute", target.recomputes),
        ("rank_order", target.rank_orders),
    ):
        pinned = pins.get(field)
        if pinned is not None and pinned not in allowed:
            words = ", ".join(map(str, allowed))
            raise FieldError((field,), f"{target.framework} has {words}, not {pinned}")
    if pins.get("sequence_parallel") and not target.sequence_parallel:
        raise FieldError(("sequence_parallel",), f"{target.framework} has none; leave it out")
