"""A reader that goes away, as in `cuboid … | head`, ends a command quietly.

The signal SIGPIPE itself stays ignored, as Python has it: it would end `cuboid launch` before its ranks are.
"""

from __future__ import annotations

import os
import sys

EXIT_CODE = 141  # 128 + SIGPIPE, which shells show of programs that the signal ends


def is_closed_pipe(error: BaseException) -> bool:
    """Whether `error` is, or was raised while handling, a write into a pipe that nobody reads.

    typer and rich turn such a write into an exit of the program with code 1.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, BrokenPipeError):
        seen = seen.__context__
    return seen is not None


def discard_output() -> int:
    """Throw away what is still buffered for the reader that is gone, and return the exit code."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except BrokenPipeError:
            # The interpreter flushes once more at its end, and would complain.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
    return EXIT_CODE
