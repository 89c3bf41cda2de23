"""Train one job: `torchrun … -m runtime.train --job RUN/job.yaml [--resume]`.

Exit codes: 0 finished, or stopped when asked to · 1 failed · 93 a wrong job, which a restart would not mend.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore
from torch.distributed.rendezvous import rendezvous

from planner.job import Job, load_job
from planner.layout_schedule import check_steps
from planner.schedules import LoweredSchedule
from planner.targets import CUBOID, check_target
from profiles.corpus import Tokens, load_corpus
from profiles.errors import ConfigError, CuboidError, FieldError
from runtime.allocator import keep_freed_memory
from runtime.data import check_enough, split_holdout
from runtime.events import append_event
from runtime.mesh import backend_of, local_device
from runtime.pipeline import lowered_schedule
from runtime.recorder import Recorder
from runtime.session import Session
from runtime.stop import StopSignals
from runtime.watchdog import DO_NOT_RESTART, Watchdog, die_with_parent, say

GROUP_SLACK_SECONDS = 60.0  # the watchdog speaks before the process groups time out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rank; return its exit code."""
    die_with_parent()
    options = _parse(arguments)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if options.log_files:
        _log_to(options.run / "logs" / f"rank-{rank}.log")
    signals = StopSignals()
    signals.install()
    try:
        job = load_job(options.job)
        lowered, corpus = prepare(job, ranks)
    except CuboidError as error:
        if rank == 0:
            say(f"error: {error}")
            append_event(options.run, "failed", rank=0, step=0, cell="", error=str(error), traceback="")
        return DO_NOT_RESTART
    device = local_device(int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    store = _store(rank, ranks)
    recorder = Recorder()
    watchdog = Watchdog(
        run=options.run,
        recorder=recorder,
        store=PrefixStore("watchdog", store.clone()),  # type: ignore[attr-defined]
        rank=rank,
        ranks=ranks,
        timeout_seconds=job.timeout_seconds,
    )
    watchdog.start()
    try:
        seconds = job.timeout_seconds + GROUP_SLACK_SECONDS
        group_store = PrefixStore("groups", store)
        dist.init_process_group(
            backend_of(device),
            store=group_store,
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=seconds),
        )
        session = Session(job, options.run, lowered=lowered, corpus=corpus, device=device, recorder=recorder)
        session.train(resume=options.resume, signals=signals)
    except BaseException as error:
        watchdog.fail(error)
    watchdog.stop()
    dist.destroy_process_group()
    return 0


def prepare(job: Job, ranks: int) -> tuple[LoweredSchedule, Tokens]:
    """Check everything about `job` that can be wrong before ranks meet; return its schedule and text.

    Raises:
        CuboidError: what to change; a restart would not help.
    """
    layout = job.plan.layout
    if ranks != layout.world_size:
        raise ConfigError(
            f"the layout has tp · pp · dp = {layout.world_size} ranks, {ranks} were started;"
            f" use torchrun --nproc-per-node={layout.world_size} or change the layout"
        )
    try:
        check_target(layout, job.plan.model, CUBOID)
    except FieldError as error:
        raise FieldError(("plan", "layout", *error.path), error.message) from None
    check_steps(layout, job.steps)
    lowered = lowered_schedule(layout)
    corpus = load_corpus(Path(job.data.path) if job.data.path else None)
    tokens, model = split_holdout(corpus, job.data.holdout)[0], job.plan.model
    check_enough(tokens, seq_len=model.seq_len, vocab=model.vocab)
    return lowered, tokens


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime.train", description="Train one rank of a job.")
    parser.add_argument("--job", type=Path, required=True, help="job.yaml")
    parser.add_argument("--run", type=Path, help="run directory; default: where job.yaml lies")
    parser.add_argument("--resume", action="store_true", help="continue from the last complete checkpoint")
    parser.add_argument("--log-files", action="store_true", help="write output to RUN/logs/rank-R.log")
    options = parser.parse_args(arguments)
    options.run = options.run or options.job.parent
    return options


def _log_to(path: Path) -> None:
    """Send everything this process writes, its libraries included, to the end of `path`."""
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def _store(rank: int, ranks: int) -> PrefixStore:
    """Return the store where the ranks meet; the one that torchrun keeps, where it does."""
    if "MASTER_ADDR" not in os.environ and ranks == 1:
        return PrefixStore("cuboid", TCPStore("127.0.0.1", 0, 1, is_master=True))
    store, _, _ = next(rendezvous("env://", rank, ranks))
    return PrefixStore("cuboid", store)


if __name__ == "__main__":
    sys.exit(main())
