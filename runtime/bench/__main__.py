"""Entry of the measurement process: `python -m runtime.bench --request FILE --output costs.yaml`.

Under torchrun this process is one rank of the measurement, else it starts the ranks. An earlier output of the
same request is gone on from. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

from profiles.bench_request import BenchRequest
from profiles.costs import CostTable
from profiles.documents import read_document
from profiles.errors import ConfigError, CuboidError
from runtime.bench.subject import check_subject

PARENT_POLL_SECONDS = 1.0


def main() -> int:
    """Measure, and return the exit code."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m runtime.bench", description=__doc__)
    parser.add_argument("--request", type=Path, required=True, help="what to measure (YAML)")
    parser.add_argument("--output", type=Path, required=True, help="where the cost table goes")
    parser.add_argument("--fresh", action="store_true", help="measure anew instead of going on")
    parser.add_argument("--parent", type=int, help="end when this process is no longer our parent")
    options = parser.parse_args()
    if options.parent is not None:
        threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    try:
        request = read_document(options.request).read(BenchRequest)
        known = None if options.fresh else _known(options.output)
        if known is not None:
            check_subject(known, request, where=str(options.output))
        return _measure(request, options.output, known, begin + request.seconds)
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
        return 130
    except CuboidError as error:
        sys.stderr.write(f"bench: {error}\n")
        return error.exit_code


def _end_with(parent: int) -> None:
    """Leave soon after the parent is gone, however it went; the ranks follow us in the same way."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


def _known(path: Path) -> CostTable | None:
    if not path.exists():
        return None
    try:
        return read_document(path).read(CostTable)
    except ConfigError as error:
        raise ConfigError(f"{error}; move the file away or choose another output") from None


def _measure(request: BenchRequest, output: Path, known: CostTable | None, deadline: float) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", str(request.threads))  # read when torch is imported
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a driver must not be woken before a fork
    sys.stderr.write(f"bench: starting {request.ranks} ranks\n")
    from runtime.bench import ranks, session  # noqa: PLC0415 (after the environment)
    from runtime.bench.warm_up import warm_up  # noqa: PLC0415

    warm_up()
    work = session.Session(request=request, output=output, deadline=deadline, known=known)
    if ranks.under_torchrun():
        ranks.run_as_rank(work, request.ranks, request.threads)
        return 0
    return ranks.run_ranks(work, request.ranks, request.threads)


if __name__ == "__main__":
    sys.exit(main())
