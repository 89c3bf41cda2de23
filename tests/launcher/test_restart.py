"""The restart policy: what it says, and that the batch script says the same."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest

import templates
from launcher.restart import PATIENCE, Budget, Ending, decide

CASES = 400


def function(name: str) -> str:
    """A function of the batch script."""
    text = (Path(templates.__file__).parent / "slurm.sbatch.j2").read_text()
    match = re.search(rf"^{name}\(\) \{{.*?^\}}$", text, flags=re.M | re.S)
    assert match
    return match[0]


def test_the_batch_script_decides_the_same(tmp_path: Path) -> None:
    """One shell decides a long random history; every verdict and every reason is the same."""
    chance = random.Random(1)
    lines, expected = [f"state={tmp_path} failures=0 stalled=0 why="], []
    budget = Budget()
    for case in range(CASES):
        if case % 8 == 0:
            budget = Budget()
            lines.append("failures=0 stalled=0")
        ending: Ending = chance.choice(get_args(Ending))
        requeue, retries, before = chance.random() < 0.9, chance.randrange(5), chance.randrange(4)
        after = before + chance.choice((0, 0, 2))
        decision = decide(ending, before=before, after=after, budget=budget, requeue=requeue, retries=retries)
        budget = decision.budget
        lines.append(f"restart={'requeue' if requeue else 'none'} retries={retries} why=")
        lines.append(f"if may_continue {ending} {before} {after}; then again=True; else again=False; fi")
        lines.append('echo "$again|$why|$(cat $state/budget)"')
        expected.append(f"{decision.again}|{decision.why}|{budget.failures} {budget.stalled}")
    script = "\n".join(["set -u", function("may_continue"), *lines])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected
    assert {line.split("|")[0] for line in expected} == {"True", "False"}


@pytest.mark.parametrize("ending", get_args(Ending))
def test_patience_ends(ending: Ending) -> None:
    """Without a new checkpoint a run stays down after as many attempts as its ending allows, and one more."""
    budget, attempts = Budget(), 0
    while True:
        attempts += 1
        decision = decide(ending, before=10, after=10, budget=budget, requeue=True, retries=100)
        budget = decision.budget
        if not decision.again:
            break
    assert attempts == PATIENCE[ending] + 1
    assert decision.why == "no checkpoint progress since step 10"


def test_progress_is_bounded_by_the_retries_alone() -> None:
    budget = Budget()
    for attempt in range(1, 5):
        decision = decide("failed", before=attempt, after=attempt + 1, budget=budget, requeue=True, retries=3)
        budget = decision.budget
        assert decision.again == (attempt <= 3)
    assert decision.why == "4 failed attempts, 3 retries were allowed"
