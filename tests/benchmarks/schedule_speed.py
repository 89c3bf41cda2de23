"""How fast schedules are simulated, proved and found. Run: `python tests/benchmarks/schedule_speed.py`.

Method: p = 64 ranks, one stage each, m = 1024 microbatches, split backward (196,608 actions); processor time
of one process, best of three. Ten million turns of an empty loop calibrate the machine, so that figures from
a busy one can be compared: ratio = time / time of that loop. The peer, torch's dry run (unit times only),
reads and simulates our own lowered 1F1B in the same run; smaller, since its time grows with ranks × steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from planner.schedules import StageTimes, build, check, loop_placement, lower, lowered_to_csv, simulate
from planner.schedules.automatic import Problem, auto

RANKS, MICROBATCHES = 64, 1024
UNIT = StageTimes.uniform(stages=RANKS)


def best(task: Callable[[], object], repeats: int = 3) -> float:
    """Least processor seconds of `task`."""
    found = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        task()
        found = min(found, time.process_time() - begin)
    return found


def loop() -> None:
    for _ in range(10_000_000):
        pass


def problem(memory_limit: float | None) -> Problem:
    return Problem(
        ranks=RANKS,
        microbatches=MICROBATCHES,
        times_of=lambda _: UNIT,
        chunks=1,
        memory_limit=memory_limit,
    )


def uneven(memory_limit: float) -> Problem:
    """F, I and W differ, and ranks may hold one stage or two."""

    def times(placement: Sequence[int]) -> StageTimes:
        return StageTimes.uniform(
            stages=len(placement),
            chunks=len(placement) // RANKS,
            forward=1.0,
            input_gradient=1.2,
            weight_gradient=0.8,
        )

    return Problem(ranks=RANKS, microbatches=MICROBATCHES, times_of=times, memory_limit=memory_limit)


def torch_dry_run(ranks: int, microbatches: int) -> Callable[[], object]:
    """Return torch's simulation of our lowered 1F1B, read by its own parser."""
    schedules = import_module("torch.distributed.pipelining.schedules")
    text = lowered_to_csv(lower(build("1f1b", ranks=ranks, microbatches=microbatches)))
    rows = {
        rank: [schedules._Action.from_str(cell) for cell in row.split(",") if "REDUCE" not in cell]
        for rank, row in enumerate(text.splitlines())
    }
    placement = loop_placement(ranks)
    return lambda: schedules._simulate_comms_compute(rows, lambda stage: placement[stage], ranks)


def main() -> None:
    schedule = build("zb-h2", ranks=RANKS, microbatches=MICROBATCHES)
    empty = best(loop)
    print(f"{'':42} {'seconds':>8} {'ratio':>7}")
    print(f"{'empty loop, 10,000,000 turns':42} {empty:8.2f} {1:7.2f}")
    tasks: dict[str, tuple[Callable[[], object], int]] = {
        "build zb-h2": (lambda: build("zb-h2", ranks=RANKS, microbatches=MICROBATCHES), 3),
        "simulate 196,608 actions": (lambda: simulate(schedule, UNIT), 3),
        "lower": (lambda: lower(schedule), 1),
        "prove (check)": (lambda: check(schedule), 1),
        "auto, no limit": (lambda: auto(problem(None)), 1),
        "auto, limit 64 microbatches": (lambda: auto(problem(64)), 1),
        "auto, limit 40 microbatches": (lambda: auto(problem(40)), 1),
        "auto, limit 40, uneven times": (lambda: auto(uneven(40)), 1),
    }
    for name, (task, repeats) in tasks.items():
        seconds = best(task, repeats)
        print(f"{name:42} {seconds:8.2f} {seconds / empty:7.2f}")
    small = build("1f1b", ranks=16, microbatches=256)
    times = StageTimes.uniform(stages=16)
    ours, theirs = best(lambda: simulate(small, times)), best(torch_dry_run(16, 256), 1)
    print(
        f"\n1f1b, p = 16, m = 256: ours {ours:.3f} s, torch's dry run {theirs:.3f} s, {theirs / ours:.1f} ×"
    )


if __name__ == "__main__":
    main()
