"""Start the ranks of a measurement, and leave none behind.

python -m runtime.bench ─┬─ rank 0   forked once torch is imported (0.1 s), or spawned where a GPU driver
                         ├─ rank 1   must not be carried through a fork; under torchrun the process itself
                         └─ …        is a rank and nothing is started
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from profiles.errors import ConfigError
from runtime.allocator import keep_freed_memory

GRACE_SECONDS = 3.0
ORPHAN_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one rank of the measurement works."""

    rank: int
    ranks: int
    local_ranks: int
    device: torch.device


Work = Callable[[Place], None]


def under_torchrun() -> bool:
    """Tell whether a launcher has already started one process per rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run_as_rank(work: Work, ranks: int, threads: int) -> None:
    """Do `work` as the rank that the launcher's environment describes.

    Raises:
        ConfigError: when the launcher started another number of processes than `ranks`.
    """
    if int(os.environ["WORLD_SIZE"]) != ranks:
        raise ConfigError(
            f"the request is for {ranks} ranks, the launcher started {os.environ['WORLD_SIZE']};"
            " set ranks in the request"
        )
    place = Place(
        rank=int(os.environ["RANK"]),
        ranks=int(os.environ["WORLD_SIZE"]),
        local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])),
        device=_device(int(os.environ.get("LOCAL_RANK", "0"))),
    )
    _join_and_work(work, place, "env://", threads)


def run_ranks(work: Work, ranks: int, threads: int) -> int:
    """Do `work` on `ranks` processes of this machine; return 0, or the exit code of the first that failed.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once no rank is left.
    """
    context: ForkContext | SpawnContext = (
        multiprocessing.get_context("spawn")
        if torch.cuda.is_available()
        else multiprocessing.get_context("fork")
    )
    previous = signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="cuboid-bench-") as folder:
        store = f"file://{Path(folder) / 'store'}"
        processes = [
            context.Process(target=_rank_main, args=(work, place, store, threads, os.getpid()))
            for place in _places(ranks)
        ]
        try:
            for process in processes:
                process.start()
            return _first_failure(processes)
        finally:
            _end(processes)
            signal.signal(signal.SIGTERM, previous)


def _places(ranks: int) -> list[Place]:
    return [Place(rank=rank, ranks=ranks, local_ranks=ranks, device=_device(rank)) for rank in range(ranks)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _first_failure(processes: Sequence[ForkProcess | SpawnProcess]) -> int:
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        for sentinel in multiprocessing.connection.wait(list(waiting)):
            assert isinstance(sentinel, int)
            process = waiting.pop(sentinel)
            process.join()
            if process.exitcode:
                return process.exitcode if process.exitcode > 0 else 1
    return 0


def _end(processes: Sequence[ForkProcess | SpawnProcess]) -> None:
    started = [process for process in processes if process.pid is not None]
    for process in started:
        if process.is_alive():
            process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _rank_main(work: Work, place: Place, store: str, threads: int, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and ends its ranks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _join_and_work(work, place, store, threads)
    sys.stderr.flush()
    os._exit(0)  # the interpreter's own shutdown takes longer than the rest of the work of a small bench


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_POLL_SECONDS)
    os._exit(1)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def _join_and_work(work: Work, place: Place, store: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    else:
        keep_freed_memory()
    backend = "nccl" if place.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=store, rank=place.rank, world_size=place.ranks)
    try:
        work(place)
    finally:
        dist.destroy_process_group()
