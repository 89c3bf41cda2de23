"""`python -m runtime.collective_check`: is the network between the ranks what the plan was priced with?

Part of the pre-flight: all ranks of the job reduce one buffer a few times, rank 0 writes the bus bandwidth
(the bytes a device sends and receives in a ring, 2·(n − 1)/n of the buffer, per second) of the median
repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from profiles.documents import write_text

BYTES = 16 << 20
REPETITIONS = 5
FILE = "collective.result"


def bus_bytes_per_second(*, size_bytes: int, ranks: int, seconds: float) -> float:
    """Return what each device carries in one direction during a ring all-reduce of `size_bytes`."""
    return 2 * (ranks - 1) / ranks * size_bytes / seconds


def measure(device: torch.device, *, size_bytes: int = BYTES) -> float:
    """Return the seconds of the median all-reduce over all ranks; every rank calls this."""
    buffer = torch.ones(size_bytes // 4, dtype=torch.float32, device=device)
    seconds = []
    for _ in range(REPETITIONS + 1):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(buffer)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])  # the first one opens the connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result on rank 0."""
    parser = argparse.ArgumentParser(prog="runtime.collective_check")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args(arguments)
    gpus = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        seconds, ranks = measure(device), dist.get_world_size()
        if dist.get_rank() == 0:
            rate = bus_bytes_per_second(size_bytes=BYTES, ranks=ranks, seconds=seconds)
            result = {"ranks": ranks, "size_bytes": BYTES, "seconds": seconds, "bytes_per_second": rate}
            write_text(options.folder / FILE, json.dumps(result) + "\n")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
