"""Strict YAML: what is read, where each value stood, and how it is written.

PyYAML's parser is used with the scalar rules of YAML 1.2, so `1e-4` is a number, `on` a string and
`1:30:00` a string. Duplicate keys, unknown keys, aliases and tags are refused. Every value keeps its
position, so a message can say `plan.yaml:12:7: layout.tp: …`.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from profiles.errors import ConfigError, CuboidError, DependencyError, FieldError, dotted

FieldPath = tuple[str | int, ...]
ALTERNATIVES = ("literal[", "tuple[")  # how pydantic names the members of a union
Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")

MAX_BYTES = 64 * 1024 * 1024
DEEPEST = 200  # levels of nesting


class Record(BaseModel):
    """Base of everything read from or written to a file: frozen, strict, no unknown keys."""

    # Validators are built when first needed: a command uses a few of all records.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's protocol)


_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
)
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), [c if c != "\0" else "" for c in _first])

_BRACKETS = re.compile(r"[][{}]")
_PLAIN_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, kw_only=True)
class Document:
    """The plain data of one file and the position of every value in it.

    `positions` maps a field path to (line, column), both counted from 1.
    """

    name: str
    data: Any
    positions: Mapping[FieldPath, tuple[int, int]] = field(default_factory=dict, repr=False)
    folder: Path = Path()

    def locate(self, path: Sequence[str | int], message: str) -> ConfigError:
        """Return the error `file:line:column: field: message` for the nearest known position."""
        known = tuple(path)
        while known and known not in self.positions:
            known = known[:-1]
        line, column = self.positions.get(known, (1, 1))
        name = f"{dotted(path)}: " if path else ""
        return ConfigError(f"{self.name}:{line}:{column}: {name}{message}")

    def read(self, model: type[Model]) -> Model:
        """Validate the document as `model`.

        Raises:
            ConfigError: with the position of the first wrong value, and a count of the others.
        """
        return self.check(lambda: validate(model, self.data))

    def check(self, build: Callable[[], Result]) -> Result:
        """Run `build` and give any `FieldError` it raises its place in this file."""
        try:
            return build()
        except FieldError as error:
            raise self.locate(error.path, error.message) from None


def validate(model: type[Model], data: Any) -> Model:
    """Validate plain data (as from YAML or JSON) as `model`.

    Raises:
        FieldError: for the first wrong field, naming the nearest known key for a misspelt one.
    """
    try:
        # JSON mode is strict about types yet takes lists for tuples, as files must.
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _field_error(model, error) from None
    except TypeError as error:
        raise FieldError((), f"not a mapping of plain values ({error})") from None


def _field_error(model: type[BaseModel], error: ValidationError) -> FieldError:
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path = _path(first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return FieldError(path + cause.path, cause.message)
    message = _sentence(first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        message = "unknown key" + _nearest(str(path[-1]), _keys_at(model, path[:-1]))
    elif first["type"] == "missing":
        path, message = path[:-1], f"'{path[-1]}' is required"
    elif not isinstance(first["input"], dict | list):
        message = f"{message}, not {json.dumps(first['input'])}"
    others = len({_path(problem["loc"]) for problem in problems}) - 1
    if others > 0:
        message += f" (and {others} more)"
    return FieldError(path, message)


def _path(place: Sequence[str | int]) -> FieldPath:
    """Return the fields of a place in the data, without the names of alternatives (`tuple[int,...]`)."""
    return tuple(part for part in place if isinstance(part, int) or not part.startswith(ALTERNATIVES))


def _sentence(message: str) -> str:
    return message.replace("Input should be", "must be")


def _keys_at(model: type[BaseModel], path: FieldPath) -> list[str]:
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        while "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return node

    nodes = [resolve(schema)]
    for part in path:
        following = []
        for node in nodes:
            for branch in [node, *map(resolve, node.get("anyOf", []))]:
                child = (
                    branch.get("items") if isinstance(part, int) else branch.get("properties", {}).get(part)
                )
                if child:
                    following.append(resolve(child))
        nodes = following
    keys: list[str] = []
    for node in nodes:
        for branch in [node, *map(resolve, node.get("anyOf", []))]:
            keys.extend(branch.get("properties", {}))
    return keys


def _nearest(key: str, keys: Sequence[str]) -> str:
    match = difflib.get_close_matches(key, keys, n=1)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known keys: {', '.join(keys)}" if keys else ""


def parse_yaml(text: str, *, name: str = "<text>", folder: Path | None = None) -> Document:
    """Parse one YAML (or JSON) document.

    Raises:
        ConfigError: for a syntax error, a duplicate key, an alias, a tag or a non-text key.
    """
    try:
        if _may_be_deep(text):
            _refuse_depth(text, name)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = error.problem or error.context or "not understood"
        if "nesting depth" in problem:  # libyaml reads ahead of its events, and has a limit of its own
            raise ConfigError(f"{where}: nested more than {DEEPEST} levels deep") from None
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    positions: dict[FieldPath, tuple[int, int]] = {}
    data = None if node is None else _construct(node, (), positions, set(), name)
    return Document(name=name, data=data, positions=positions, folder=folder or Path())


def _may_be_deep(text: str) -> bool:
    """Whether brackets, or the columns of one line, allow more than DEEPEST levels."""
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKETS.findall(text))
    return (
        max(accumulate(steps), default=0) > DEEPEST or max(map(len, text.splitlines()), default=0) > DEEPEST
    )


def _refuse_depth(text: str, name: str) -> None:
    """Refuse what the parser, which calls itself for every level, has no stack for."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            mark = event.start_mark
            where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
            raise ConfigError(f"{where}: nested more than {DEEPEST} levels deep")


def read_document(path: Path) -> Document:
    """Read one YAML (or JSON) file.

    Raises:
        ConfigError: when it is missing, unreadable, not UTF-8, too large or not strict YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB; is this the right file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file (UTF-8)") from None
    return parse_yaml(text, name=str(path), folder=path.parent)


def _construct(
    node: yaml.Node, path: FieldPath, positions: dict[FieldPath, tuple[int, int]], seen: set[int], name: str
) -> Any:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    positions[path] = (line, column)
    where = f"{name}:{line}:{column}"
    if id(node) in seen:
        raise ConfigError(f"{where}: aliases (*name) are not supported; write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        try:
            return _scalar(node, where)
        except ValueError:
            raise ConfigError(f"{where}: not a number that can be read: {node.value[:40]!r}") from None
    if node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{where}: the tag {node.tag} is not supported")
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, i), positions, seen, name) for i, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = key_node.start_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{at}: a key must be plain text")
        key = str(key_node.value)
        if key in result:
            raise ConfigError(f"{at}: duplicate key '{key}'; remove one of the two")
        result[key] = _construct(value_node, (*path, key), positions, seen, name)
        # A message about a field points at its key, where people look for it.
        positions[(*path, key)] = (mark.line + 1, mark.column + 1)
    return result


def _scalar(node: yaml.ScalarNode, where: str) -> Any:
    tag, text = node.tag.rsplit(":", 1)[-1], node.value
    if tag == "str":
        return text
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if tag == "float":
        return float(text.replace(".inf", "inf").replace(".nan", "nan").lower().replace("..", "."))
    raise ConfigError(f"{where}: the tag {node.tag} is not supported")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write shared values out: the reader refuses aliases."""
        return True


# Strings that YAML 1.1 or 1.2 readers would take for something else are quoted by PyYAML's own 1.1
# rules; `1e-4`-like strings, which only 1.2 takes for numbers, need this extra rule.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_SCALARS[3][1]), list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_SCALARS[2][1]), list("-+0123456789"))


_BREAKS = frozenset("\x85\u2028\u2029\ufeff")  # line breaks and marks that only double quotes keep


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS & set(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))


_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def plain(model: BaseModel) -> dict[str, Any]:
    """Return the plain data of a record, without fields that are unset defaults."""
    data: dict[str, Any] = json.loads(model.model_dump_json(exclude_none=True))
    return data


def write_yaml(path: Path, model: BaseModel) -> None:
    """Write a record to `path`, atomically."""
    write_text(path, dump_yaml(plain(model)))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: readers see the old file or the new one, never a part.

    Raises:
        ConfigError: when the folder is missing, or the disk cannot take the file.
        DependencyError: when this user may not write there.
    """
    descriptor, temporary = _beside(path)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the long work that fills it.

    Raises:
        ConfigError, DependencyError: as `write_text` does.
    """
    descriptor, temporary = _beside(path)
    os.close(descriptor)
    temporary.unlink()


def cannot_write(path: Path, error: OSError) -> CuboidError:
    """Return the error that says why `path` was not written, and what to change."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{path}: cannot write: there is no folder {path.parent}; make it first")
    refused = isinstance(error, PermissionError) or error.errno == errno.EROFS
    return (DependencyError if refused else ConfigError)(f"{path}: cannot write: {error.strerror}")


def _beside(path: Path) -> tuple[int, Path]:
    """Open a new file in the folder of `path`."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise cannot_write(path, error) from None
    return descriptor, Path(name)
