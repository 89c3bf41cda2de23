"""A batch script taken apart: directives, commands, and the words of the commands that start ranks.

This is reading, not running: shell is only understood as far as lines, comments, quotes and continuations.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

_SHORT = {
    "N": "nodes", "n": "ntasks", "c": "cpus-per-task", "t": "time", "p": "partition", "A": "account",
    "J": "job-name", "o": "output", "e": "error", "G": "gpus", "C": "constraint", "w": "nodelist",
    "x": "exclude", "D": "chdir", "q": "qos", "d": "dependency", "a": "array",
}  # fmt: skip
_FLAGS = frozenset({"exclusive", "requeue", "no-requeue", "overcommit", "contiguous", "hold", "spread-job"})
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One logical line (continuations joined), counted from 1 at its first physical line."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True)
class DirectiveLine:
    """One option of an `#SBATCH` line; `late` when SLURM no longer reads it."""

    number: int
    name: str
    value: str
    late: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script: its directives and its commands. `environment` is that of the shell it is sent from."""

    directives: tuple[DirectiveLine, ...]
    commands: tuple[Line, ...]
    text: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str) -> DirectiveLine | None:
        """Return the directive that is in force for an option: the last one SLURM reads."""
        found = [d for d in self.directives if d.name == name and not d.late]
        return found[-1] if found else None

    def number(self, name: str) -> int | None:
        """Return the value of an option that is a plain count."""
        directive = self.option(name)
        return int(directive.value) if directive and directive.value.isdigit() else None

    @cached_property
    def sruns(self) -> tuple[Line, ...]:
        """Commands that start a step."""
        return tuple(line for line in self.commands if re.search(r"(?:^|[\s;&|({`])srun(?:\s|$)", line.text))

    @cached_property
    def torchruns(self) -> tuple[Line, ...]:
        """Commands that start torch's launcher."""
        pattern = re.compile(r"(?:^|[\s;&|('\"/])torchrun(?:\s|$)|torch\.distributed\.(?:run|launch)\b")
        return tuple(line for line in self.commands if pattern.search(line.text))

    def flag(self, line: Line, *names: str) -> str | None:
        """Return the value of `--name VALUE` or `--name=VALUE` in a command, dashes and underscores alike."""
        spelled = "|".join(re.escape(name).replace(r"\-", "[-_]") for name in names)
        match = re.search(rf"""--?(?:{spelled})(?:=|\s+)("[^"]*"|'[^']*'|\S+)""", line.text)
        return match.group(1).strip("\"'") if match else None


def parse_script(text: str, environment: Mapping[str, str] | None = None) -> Script:
    """Take a script apart."""
    directives: list[DirectiveLine] = []
    commands: list[Line] = []
    lines = text.split("\n")
    index, until = 0, None
    while index < len(lines):
        number, line = index + 1, lines[index]
        index += 1
        if until is not None:  # inside a here-document
            until = None if line.strip() == until else until
            commands.append(Line(number=number, text=line))
            continue
        stripped = line.strip()
        if stripped.startswith("#SBATCH"):
            directives += _options(number, stripped, late=bool(commands))
            continue
        if not stripped or stripped.startswith("#"):
            continue
        while line.endswith("\\") and index < len(lines):
            line = line[:-1] + " " + lines[index].strip()
            index += 1
        match = _HEREDOC.search(line)
        until = match.group(2) if match else None
        commands.append(Line(number=number, text=_without_comment(line)))
    return Script(
        directives=tuple(directives), commands=tuple(commands), text=text, environment=environment or {}
    )


def trains(line: Line) -> bool:
    """Tell whether a command may start ranks, rather than ask for a host name or copy a file."""
    return bool(re.search(r"torch|python|\.py\b|\.sh\b|accelerate|deepspeed|bash", line.text))


def _options(number: int, line: str, *, late: bool) -> list[DirectiveLine]:
    try:
        words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    except ValueError:
        words = line.removeprefix("#SBATCH").split()
    found, index = [], 0
    while index < len(words):
        word = words[index]
        index += 1
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1:
            name, value = _SHORT.get(word[1], word[1]), word[2:].removeprefix("=")
            equals = value
        else:
            continue
        takes_next = not equals and name not in _FLAGS and index < len(words)
        if takes_next and not words[index].startswith("-"):
            value, index = words[index], index + 1
        found.append(DirectiveLine(number=number, name=name, value=value, late=late, text=line))
    return found


def _without_comment(line: str) -> str:
    quote = ""
    for position, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position].rstrip()
    return line
