"""The watchdog: no failure may turn into a hang, and every failure names its rank and cell.

A thread in every rank publishes, twice a second, the cell that its rank is in, and looks for four things:

    another rank has failed    say where this rank was; end
    this rank has not moved    for `timeout_seconds`: print the cell of every rank; end the job
    the parent is gone         end, so that no orphan trains on
    the store is gone          the same

A rank that raises says so (`fail`): its cell, then its traceback. Where the error is a broken connection, the
rank first looks for one that stopped publishing: it was killed, and is named instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed import Store

from profiles.errors import ConfigError, CuboidError
from runtime.events import append_event
from runtime.recorder import Recorder

PUBLISH_SECONDS = 0.5
SILENT_SECONDS = 3.0  # a rank that has not published for so long is stopped or gone
CAUSE_SECONDS = 3.0  # how long a broken connection waits for its cause to show
RANKS_PER_SECOND = 2000  # notices that the store is asked to take
FAILED = 1
DO_NOT_RESTART = 93  # a wrong job, which a restart would not mend
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_BROKEN = ("connection", "reset by peer", "broken pipe", "timed out", "gloo", "nccl", "socket")


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


Place = dict[str, Any]  # step, cell, waits, since, now; as published


class Watchdog:
    """Watches one rank, and through the store all others."""

    def __init__(
        self,
        *,
        run: Path,
        recorder: Recorder,
        store: Store,
        rank: int,
        ranks: int,
        timeout_seconds: float,
    ) -> None:
        self._run = run
        self._recorder = recorder
        self._store = store
        self._rank = rank
        self._ranks = ranks
        self._timeout_seconds = timeout_seconds
        self._interval = max(PUBLISH_SECONDS, ranks / RANKS_PER_SECOND)
        self._parent = os.getppid()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Publish a first place, so that a rank that dies young can be missed, and start watching."""
        self._publish()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, at the end of a run."""
        self._done.set()
        self._thread.join()

    def fail(self, error: BaseException) -> NoReturn:
        """Report that this rank raised `error`, and end the process.

        What a user can mend needs no traceback, and a wrong configuration no restart. A broken connection is
        a symptom: if another rank failed or vanished, that one is named instead.
        """
        place, text, reason = self._place(), "", str(error)
        if not isinstance(error, CuboidError):
            text, reason = "".join(traceback.format_exception(error)), f"{type(error).__name__}: {error}"
        with self._lock:
            try:
                if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _BROKEN):
                    self._look_for_cause()
                self._report(self._rank, place, reason, text)
            except RuntimeError as lost:
                say(f"rank {self._rank} failed: {_describe(place)}: {error}\n{text}(no store: {lost})")
            self._leave(DO_NOT_RESTART if isinstance(error, ConfigError) else FAILED)

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            if os.getppid() != self._parent:
                os._exit(FAILED)
            with self._lock:
                try:
                    self._look()
                except RuntimeError as error:
                    say(f"rank {self._rank}: the store is gone ({error}); was {_describe(self._place())}")
                    leave()

    def _look(self) -> None:
        self._publish()
        if self._store.check(["failed"]):
            self._follow()
        still = self._recorder.still_seconds()
        if still > self._timeout_seconds:
            places = self._places()
            silent = [rank for rank, place in places.items() if _silent_seconds(place) > SILENT_SECONDS]
            busy = [rank for rank, place in places.items() if not place["waits"]]
            culprit = min(silent or busy or places, key=lambda rank: float(places[rank]["since"]))
            table = "".join(f"  rank {rank}: {_describe(place)}\n" for rank, place in places.items())
            reason = f"nothing has moved for {still:.0f} s (timeout_seconds: {self._timeout_seconds:g})"
            self._report(culprit, places[culprit], reason, table)
            self._leave()

    def _look_for_cause(self) -> None:
        """Give the rank that is to blame time to say so; name a rank that has gone silent; or return."""
        before, deadline = self._places(), time.monotonic() + CAUSE_SECONDS
        while time.monotonic() < deadline:
            if self._store.check(["failed"]):
                self._follow()
            self._publish()
            time.sleep(0.1)
        for rank, place in self._places().items():
            if place == before.get(rank) and rank != self._rank:
                self._report(rank, place, "the process is gone; was it killed, or out of memory?", "")
                self._leave()

    def _report(self, rank: int, place: Place, error: str, text: str) -> None:
        """Write down who failed, unless another rank was first."""
        notice = json.dumps({"rank": rank, "by": self._rank, "error": error})
        if self._store.compare_set("failed", "", notice) != notice.encode():
            self._follow()
        say(f"rank {rank} failed: {_describe(place)}: {error}\n{text}")
        append_event(
            self._run,
            "failed",
            rank=rank,
            step=place["step"],
            cell=place["cell"],
            error=error,
            traceback=text,
        )

    def _follow(self) -> NoReturn:
        notice = json.loads(self._store.get("failed"))
        say(f"rank {self._rank}: ends because rank {notice['rank']} failed; was {_describe(self._place())}")
        self._leave()

    def _leave(self, status: int = FAILED) -> NoReturn:
        """End; the first rank, which may keep the store, last, so that the others can read why."""
        if self._rank == 0:
            time.sleep(2 * self._interval)
        leave(status)

    def _publish(self) -> None:
        self._store.set(f"place/{self._rank}", json.dumps(self._place()))

    def _place(self) -> Place:
        recorder = self._recorder
        now = time.time()
        return {
            "step": recorder.step,
            "cell": str(recorder.current),
            "waits": recorder.waiting,
            "since": now - recorder.still_seconds(),
            "now": now,
        }

    def _places(self) -> dict[int, Place]:
        """Return the last published place of every rank, without those that never published."""
        keys = {rank: f"place/{rank}" for rank in range(self._ranks)}
        known = [rank for rank, key in keys.items() if self._store.check([key])]
        texts = self._store.multi_get([keys[rank] for rank in known])
        return {rank: json.loads(text) for rank, text in zip(known, texts, strict=True)}


def _describe(place: Place) -> str:
    doing = "waiting in" if place["waits"] else "in"
    text = f"step {place['step']}, {doing} {place['cell']} for {time.time() - place['since']:.1f} s"
    silent = _silent_seconds(place)
    return text if silent < SILENT_SECONDS else f"{text}; silent for {silent:.1f} s"


def _silent_seconds(place: Place) -> float:
    return time.time() - float(place["now"])


def say(text: str) -> None:
    """Write to the log now."""
    print(text, file=sys.stderr, flush=True)


def leave(status: int = FAILED) -> NoReturn:
    """End the process at once: threads inside a broken collective cannot be joined."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
