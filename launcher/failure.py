"""Why a run failed: the first rank that did, not those that fell over it."""

from __future__ import annotations

from launcher.run_directory import RunDirectory
from profiles.errors import RunError

TAIL_LINES = 25


def failure(run: RunDirectory, exit_code: int) -> RunError:
    """Return the error to show for a run that ended with `exit_code`."""
    # Lines of earlier attempts stay in the file; only what follows the last start counts.
    events = run.events()
    starts = [i for i, event in enumerate(events) if event.get("event") in {"started", "resumed"}]
    failed = [e for e in events[starts[-1] if starts else 0 :] if e.get("event") == "failed"]
    if failed:
        first = min(failed, key=lambda event: event.get("time", 0.0))
        cell = f" at cell {first['cell']}" if first.get("cell") else ""
        return RunError(
            f"the run failed: rank {first.get('rank')}{cell}: {first.get('error')}\n"
            f"{str(first.get('traceback', '')).rstrip()}\n"
            f"Logs of every rank: {run.logs}"
        )
    return RunError(f"the run ended with exit code {exit_code}\n{_tail(run)}\nLogs of every rank: {run.logs}")


def _tail(run: RunDirectory) -> str:
    log = run.logs / "torchrun.log"
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
