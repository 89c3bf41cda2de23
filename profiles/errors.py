"""The tree of errors a user can meet, and the exit code of each.

    CuboidError                     exit code
    ├── ConfigError                 2   a file, field or option is wrong
    │   └── FieldError              2   … at a field whose position in the file is still to be found
    ├── InfeasibleError             3   nothing fits, or a schedule is refuted
    ├── PreflightError              3   the machine is not what the plan was made for
    ├── DependencyError             4   a program, library or permission is missing
    └── RunError                    1   the job itself failed

A message says what is wrong, where, what the limit is, and what to change.
"""

from __future__ import annotations

from collections.abc import Sequence

Path = tuple[str | int, ...]


class CuboidError(Exception):
    """Root of all errors that are shown to the user as one message."""

    exit_code = 1


class ConfigError(CuboidError):
    """A file, field or command-line option is wrong."""

    exit_code = 2


class FieldError(ConfigError):
    """A field has a value that cannot be used.

    Raised by checks that see only data; whoever read the data from a file adds the position
    (`profiles.documents.Document.locate`).
    """

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path: Path = tuple(path)
        self.message = message
        super().__init__(f"{dotted(self.path)}: {message}" if self.path else message)


class InfeasibleError(CuboidError):
    """No layout fits, or a schedule was refuted."""

    exit_code = 3


class PreflightError(CuboidError):
    """The machine at hand is not the machine the plan was made for."""

    exit_code = 3


class DependencyError(CuboidError):
    """A program, library or permission is missing."""

    exit_code = 4


class RunError(CuboidError):
    """The job was started and failed."""

    exit_code = 1


def dotted(path: Sequence[str | int]) -> str:
    """Write a field path the way users do: `layout.layers_per_stage[3]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text
