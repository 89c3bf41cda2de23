"""Asking a run to stop or to save: signals, and files in the run directory.

SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint and a clean end after the running step; the files STOP and
SAVE ask for an end and for a checkpoint. All ranks agree at the end of every step, so a signal to any of them
is enough. Python runs signal handlers in the main thread, which may be waiting inside a collective; so the
interpreter writes the signal's number into a pipe, and a thread reads it.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
IMPATIENT = (signal.SIGTERM, signal.SIGINT)  # the second one ends at once
INTERRUPTED = 130


class StopSignals:
    """Remembers the first signal that asked this process to stop."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def install(self) -> None:
        """Start listening; call this in the main thread."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), name="stop-signals", daemon=True).start()

    def _listen(self, reader: int) -> None:
        while received := os.read(reader, 1):
            number = received[0]
            if number not in SIGNALS:
                continue
            if self.reason is not None and number in IMPATIENT:
                os._exit(INTERRUPTED)
            self.reason = self.reason or signal.Signals(number).name


def take_switch(run: Path, name: str) -> str | None:
    """Return what the file `name` in the run directory holds, and remove it; None when it is not there."""
    path = run / name
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        path.unlink()
    except FileNotFoundError:
        return None
    return text
