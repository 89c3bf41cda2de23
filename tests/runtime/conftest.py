"""Fixtures for tests that need several ranks: forked processes over gloo."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from planner.job import Job
from planner.layout import Layout
from planner.plan import Plan
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.documents import write_yaml
from profiles.model import ModelSpec

WATCHDOG_SECONDS = 240.0  # a busy machine is slow; a hang is a hang
TEXT = "The quick brown fox jumps over the lazy dog, again and again and again. " * 60


class RankError(Exception):
    """A rank of a multi-process test raised; the message is that rank's traceback."""


def _child(pipe: Connection, rank: int, ranks: int, call: Callable[[], Any]) -> None:
    # The parent's thread pools do not survive the fork, so a child computes with one thread.
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    try:
        timeout = timedelta(seconds=WATCHDOG_SECONDS)
        store = dist.TCPStore("127.0.0.1", pipe.recv(), is_master=False, timeout=timeout)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timeout)
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
    pipes, processes = [], []
    try:
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_child, args=(theirs, rank, ranks, partial(call, *args)), daemon=True
            )
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        # Quicker than a file; but after the forks: a child inherits the locks that the server's thread holds.
        server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for pipe in pipes:
            with suppress(BrokenPipeError):  # a rank that is gone is told of below
                pipe.send(server.port)
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
    """Keep torch from starting threads that a forked child would miss; import what children need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.optim.SGD([torch.ones(1)])  # the first optimizer imports torch._dynamo: once here, for all
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., list[Any]]:
    """Return `run_ranks(n, call, *args)`: the results of `call(*args)` on n forked gloo ranks, by rank.

    The default process group is ready when `call` starts. The first rank that raises ends the others and
    fails the test with its traceback; a run longer than `WATCHDOG_SECONDS` fails too. Closures are fine:
    children are forked; results must be picklable.
    """
    return _run_ranks


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_run(layout, name="run", **job)`: a run directory with the job of a very small model."""

    def make(layout: Layout, *, name: str = "run", model: ModelSpec | None = None, **fields: Any) -> Path:
        run = tmp_path / name
        run.mkdir()
        text = tmp_path / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        model = model or ModelSpec(layers=2, hidden=16, heads=2, vocab=256, seq_len=16)
        device = DeviceSpec(
            name="cpu",
            vendor="cpu",
            memory_bytes=2**30,
            memory_bytes_per_second=1e10,
            flops_per_second={"fp32": 1e10},
        )
        link = LinkSpec(name="loopback", kind="shared_memory", bytes_per_second=1e9, latency_seconds=1e-4)
        cluster = ClusterSpec(device=device, devices_per_node=8, links=(link,))
        plan = Plan(model=model, cluster=cluster, layout=layout)
        job = Job(plan=plan, **({"steps": 6, "data": {"path": str(text)}} | fields))
        write_yaml(run / "job.yaml", job)
        return run

    return make


@dataclass(frozen=True)
class Training:
    """The forked ranks of one training run."""

    processes: list[Any]

    def wait(self, seconds: float = WATCHDOG_SECONDS) -> list[int]:
        """Return the exit codes of all ranks; ranks still alive after `seconds` fail the test."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
        assert not late, f"ranks {late} still run after {seconds:.0f} s"
        return [process.exitcode for process in self.processes]


def _train(rank: int, ranks: int, port: int, words: list[str], patch: Callable[[int], None] | None) -> None:
    from runtime.train import main

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if patch is not None:
        patch(rank)
    os._exit(main(words))


@pytest.fixture
def train_ranks() -> Iterator[Callable[..., Training]]:
    """Return `train_ranks(run, ranks, resume=False, patch=None)`: runtime.train in forked ranks.

    `patch(rank)` runs in every rank before training, to break something in it. Output goes to RUN/logs.
    """
    started: list[Any] = []

    def start(
        run: Path, ranks: int, *, resume: bool = False, patch: Callable[[int], None] | None = None
    ) -> Training:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--job", str(run / "job.yaml"), "--log-files", *(["--resume"] if resume else [])]
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_train, args=(rank, ranks, port, words, patch), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        started.extend(processes)
        return Training(processes)

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()
