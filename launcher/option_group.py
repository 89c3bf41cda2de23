"""Options of a command as dataclasses: `Annotated` fields become options, the command gets the dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any


def option_groups(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of each dataclass in place of that parameter.

    A field is annotated as the parameter of a command would be, `Annotated[int, typer.Option(…)] = 1`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        kept = [parameter for name, parameter in own.items() if name not in groups]
        extra = {name: _parameters(group) for name, group in groups.items()}

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            made = {
                name: groups[name](**{parameter.name: given.pop(parameter.name) for parameter in parameters})
                for name, parameters in extra.items()
            }
            command(**given, **made)

        merged = [*kept, *(parameter for parameters in extra.values() for parameter in parameters)]
        with_options.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        del with_options.__wrapped__
        return with_options

    return decorate


def _parameters(group: type) -> list[inspect.Parameter]:
    kinds = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name]
        )
        for field in dataclasses.fields(group)
    ]
