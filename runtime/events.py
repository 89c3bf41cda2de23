"""events.jsonl: what happened in a run, one JSON object a line, by any rank."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

_TAIL_BYTES = 1 << 20


def append_line(path: Path, data: dict[str, Any]) -> None:
    """Append one JSON line in a single write, so that lines of several ranks do not mix."""
    line = json.dumps(data) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def drop_partial_line(path: Path) -> None:
    """Cut off a last line that was not written to its end: by a full disk, or a machine that lost power."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        start = max(0, end - _TAIL_BYTES)
        stream.seek(start)
        tail = stream.read()
        if tail and not tail.endswith(b"\n"):
            stream.truncate(start + tail.rfind(b"\n") + 1)


def append_event(run: Path, event: str, **fields: Any) -> None:
    """Append an event with the present time."""
    append_line(run / "events.jsonl", {"time": time.time(), "event": event, **fields})
