"""What goes where: one JSON document or human text on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROW_COLUMNS = 110


def print_json(data: Any) -> None:
    """Print one JSON document on stdout, for machines."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def stdout_console() -> Console:
    """Return a console for results. A pipe gets plain text, NARROW_COLUMNS wide."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """Return a console for progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415 (start-up time)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else NARROW_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False, emoji=False)


def counted(number: int, one: str, many: str = "") -> str:
    """Return "1 rank" or "2 ranks"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def table(title: str | None = None) -> Table:
    """Return an empty table in the house style."""
    from rich import box  # noqa: PLC0415 (start-up time)
    from rich.table import Table  # noqa: PLC0415

    from launcher.table_title import TableTitle  # noqa: PLC0415

    heading = None if title is None else TableTitle(title, style="bold")
    return Table(title=heading, box=box.SIMPLE_HEAD, pad_edge=False)
