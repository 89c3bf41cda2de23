"""The process that looks after a run on this machine, so that another one can ask it to stop.

launch/launcher holds its id and its start time: an id alone may have been given to another process since.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from launcher.run_directory import RunDirectory
from profiles.documents import write_text


@contextmanager
def launcher_file(run: RunDirectory) -> Iterator[None]:
    """Say that this process looks after `run`."""
    write_text(_path(run), f"{os.getpid()} {psutil.Process().create_time()}\n")
    try:
        yield
    finally:
        _path(run).unlink(missing_ok=True)


def launcher_of(run: RunDirectory) -> psutil.Process | None:
    """Return the process that looks after `run`, None when there is none any more."""
    try:
        pid, started = _path(run).read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(started) else None
    except (OSError, ValueError, psutil.Error):
        return None


def _path(run: RunDirectory) -> Path:
    return run.path / "launch" / "launcher"
