"""Whether a run is started again after an attempt. The batch script applies the same policy on its own.

Again, when restarts are wanted, failed attempts are within the retries, and checkpoints move on. How many
attempts in a row may end without a new checkpoint depends on what ended them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# stopped: before the time limit · preempted: for another job · failed: a rank · killed: a rank, by a signal
Ending = Literal["stopped", "preempted", "failed", "killed"]

# A machine may fail once between two checkpoints; pre-emption says nothing about the job.
PATIENCE: dict[Ending, int] = {"stopped": 0, "failed": 0, "killed": 1, "preempted": 5}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What was used up: failed attempts, and the last ones in a row without a new checkpoint."""

    failures: int = 0
    stalled: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to start again, why not, and what is used up from now on."""

    again: bool
    why: str
    budget: Budget


def decide(
    ending: Ending, *, before: int, after: int, budget: Budget, requeue: bool, retries: int
) -> Decision:
    """Decide after an attempt that began at checkpoint `before` and left checkpoint `after`."""
    used = Budget(
        failures=budget.failures + (ending in {"failed", "killed"}),
        stalled=0 if after > before else budget.stalled + 1,
    )
    why = ""
    if not requeue:
        why = "no restart was asked for"
    elif used.failures > retries:
        why = f"{used.failures} failed attempts, {retries} retries were allowed"
    elif used.stalled > PATIENCE[ending]:
        why = f"no checkpoint progress since step {before}"
    return Decision(again=not why, why=why, budget=used)
