"""The fields of site.yaml as options of a command, under the same names with dashes.

`@slurm_options` adds one option a field to a command and hands over what was given as `slurm: SlurmOptions`.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from profiles.documents import validate
from profiles.errors import ConfigError, FieldError
from profiles.site import SlurmOptions

# Shown by --help; the others are accepted too.
HELP = {
    "partition": "SLURM: partition of the job.",
    "account": "SLURM: account that pays.",
    "time_limit": "SLURM: time limit, as in 4:00:00.",
    "nodelist": "SLURM: use these nodes.",
    "exclude": "SLURM: leave these nodes out.",
    "exclusive": "SLURM: whole nodes (default), or share them.",
    "process_model": "SLURM: torchrun on every node, or ranks started by srun.",
    "keep_environment": "SLURM: inherited NCCL_*, GLOO_*, … variable to keep; repeatable.",
    "environment": "NAME=VALUE for every rank; repeatable.",
    "container": "SLURM: image to run in.",
    "requeue": "Start again after a failure, on SLURM also after the time limit (default).",
    "array": "SLURM: a chain of N links, one after the other, instead of requeueing.",
    "dependency": "SLURM: singleton (with --links N: a chain), or afterok:JOBID and its kind.",
    "links": "SLURM: number of submissions of a singleton chain.",
    "retries": "Failed attempts before the run stays down (default 3).",
    "elastic": "SLURM: plan again when another number of nodes is allocated.",
    "min_nodes": "SLURM: fewest nodes of an elastic job.",
    "preflight": "Look at the machine first: strict (default), warn or off.",
}


def slurm_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with an option for every field of site.yaml; it gets them as `slurm`.

    The merged signature is what typer reads.
    """
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != "slurm"]
    extra = [_parameter(name) for name in SlurmOptions.model_fields]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        values = {name: given.pop(name) for name in SlurmOptions.model_fields}
        command(**given, slurm=options_from(values))

    parameters = [*kept, *extra]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del with_options.__wrapped__
    return with_options


def options_from(values: dict[str, Any]) -> SlurmOptions:
    """Return the options of a command line; lists become what the fields hold.

    Raises:
        ConfigError: for an assignment without `=`, or a value that a field does not take.
    """
    data = {name: value for name, value in values.items() if value is not None and value != []}
    if "environment" in data:
        data["environment"] = _assignments(data["environment"])
    if "container" in data:
        data["container"] = {"image": data["container"]}
    try:
        return validate(SlurmOptions, data)
    except FieldError as error:
        name = str(error.path[0]).replace("_", "-") if error.path else ""
        raise ConfigError(f"--{name}: {error.message}") from None


def _assignments(words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--environment {word!r}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def _parameter(name: str) -> inspect.Parameter:
    kind = _option_type(SlurmOptions.model_fields[name].annotation)
    switch = f"--{name.replace('_', '-')}"
    if kind is bool:
        switch += f"/--no-{name.replace('_', '-')}"
    option = typer.Option(switch, help=HELP.get(name), hidden=name not in HELP)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _option_type(annotation: Any) -> Any:
    """Return what typer parses for a field: its plain type, and text where it has structure."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (tuple, dict):
        return list[str]
    return annotation if annotation in (bool, int, float) else str
