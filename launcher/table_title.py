"""The title of a table, which may be longer than the table is wide."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text


class TableTitle(Text):
    """A title that is wrapped at the width of the console, not of the table below it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        """Render the title for the whole width."""
        return super().__rich_console__(console, options.update(width=console.width, justify="default"))
