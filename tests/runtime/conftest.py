"""Fixtures for tests that need several ranks: forked processes over gloo."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

WATCHDOG_SECONDS = 60.0


class RankError(Exception):
    """A rank of a multi-process test raised; the message is that rank's traceback."""


def _child(pipe: Connection, rank: int, ranks: int, store: str, call: Callable[[], Any]) -> None:
    # The parent's thread pools do not survive the fork, so a child computes with one thread.
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    try:
        timeout = timedelta(seconds=WATCHDOG_SECONDS)
        file = dist.FileStore(store, ranks)
        dist.init_process_group("gloo", store=file, rank=rank, world_size=ranks, timeout=timeout)
        result = call()
        dist.barrier()
        dist.destroy_process_group()
        pipe.send_bytes(pickle.dumps((True, result)))
    except BaseException:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
        os._exit(1)
    os._exit(0)


def _collect(pipes: list[Connection]) -> list[Any]:
    results: dict[Connection, Any] = {}
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while len(results) < len(pipes):
        waiting = [pipe for pipe in pipes if pipe not in results]
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            late = [pipes.index(pipe) for pipe in waiting]
            raise RankError(f"ranks {late} gave no result within {WATCHDOG_SECONDS:.0f} s")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = pipes.index(pipe)
            try:
                done, value = pickle.loads(pipe.recv_bytes())
            except EOFError:
                raise RankError(f"rank {rank} ended without a result") from None
            if not done:
                raise RankError(f"rank {rank} raised:\n{value}")
            results[pipe] = value
    return [results[pipe] for pipe in pipes]


def _run_ranks(ranks: int, call: Callable[..., Any], *args: Any) -> list[Any]:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        pipes, processes = [], []
        try:
            for rank in range(ranks):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_child, args=(theirs, rank, ranks, store, partial(call, *args)), daemon=True
                )
                process.start()
                theirs.close()
                pipes.append(ours)
                processes.append(process)
            results = _collect(pipes)
            for process in processes:
                process.join(timeout=10)
            return results
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
                process.join()
                process.close()
            for pipe in pipes:
                pipe.close()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch from starting threads that a forked child would miss."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., list[Any]]:
    """Return `run_ranks(n, call, *args)`: the results of `call(*args)` on n forked gloo ranks, by rank.

    The default process group is ready when `call` starts. The first rank that raises ends the others and
    fails the test with its traceback; a run longer than a minute fails too. Closures are fine, since
    children are forked; results must be picklable.
    """
    return _run_ranks
