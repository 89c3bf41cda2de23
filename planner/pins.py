"""Pins: layout fields that the user has decided, `tp=8,schedule=1f1b`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveInt

from planner.layout import Layout, RankOrder, Recompute
from profiles.cluster import Precision
from profiles.documents import Record, parse_yaml, validate
from profiles.errors import ConfigError, FieldError


class _PinnedFields(Record):
    """The fields that may be pinned, with the types that `Layout` gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tp: PositiveInt | None = None
    pp: PositiveInt | None = None
    dp: PositiveInt | None = None
    chunks: PositiveInt | None = None
    microbatch: PositiveInt | None = None
    schedule: str | None = None
    sequence_parallel: bool | None = None
    recompute: Recompute | None = None
    zero: Literal[0, 1, 2, 3] | None = Field(default=None)
    precision: Precision | None = None
    rank_order: RankOrder | None = None


PINNABLE = tuple(_PinnedFields.model_fields)


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Values by layout field; a field that is absent is free."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def allow(self, name: str, value: object) -> bool:
        """Tell whether field `name` may take `value`."""
        return name not in self.values or self.values[name] == value

    def get(self, name: str) -> Any:
        """Return the pinned value, or None."""
        return self.values.get(name)

    def describe(self) -> str:
        """Write the pins as the command line has them."""
        return ",".join(f"{key}={_text(value)}" for key, value in self.values.items())

    def match(self, layout: Layout) -> bool:
        """Tell whether a layout has every pinned value."""
        return all(getattr(layout, key) == value for key, value in self.values.items())


def parse_pins(text: str, *, option: str = "--pin") -> Pins:
    """Parse `tp=8,schedule=1f1b`.

    Raises:
        ConfigError: for a part that is not key=value, an unknown or repeated key, or a wrong value.
    """
    data: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"{option}: '{part}' is not of the form key=value, as in tp=8")
        if key not in PINNABLE:
            near = difflib.get_close_matches(key, PINNABLE, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"use {', '.join(PINNABLE)}"
            raise ConfigError(f"{option}: unknown key '{key}'; {hint}")
        if key in data:
            raise ConfigError(f"{option}: '{key}' is given twice")
        data[key] = parse_yaml(value, name=option).data
    if not data:
        return Pins()
    try:
        fields = validate(_PinnedFields, data)
    except FieldError as error:
        raise ConfigError(f"{option}: {error}") from None
    return Pins(values=MappingProxyType({key: getattr(fields, key) for key in data}))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
