"""How the batch script concludes an attempt, with SLURM and the ranks replaced by what they would say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import templates

STUBS = """
run=$PWD events_before=0 step_before=2 SLURM_JOB_NODELIST=n[1-2] ranks=$PWD why= cause=
newest_checkpoint() { printf 4; }
first_failure() { ((status == 0)) || printf '1.0 %s 0' "$status"; }
may_continue() { kind_seen=$1; }
still_running() { return 0; }
being_ended() { ((ending)); }
lost_nodes() { printf '%s' "$lost"; }
terminated() { stopping=terminated cause="cancelled by scancel"; }
end() { printf '%s %s|%s|%s' "$1" "$2" "${kind_seen:-}" "$why"; exit 0; }
"""


def function(name: str) -> str:
    text = (Path(templates.__file__).parent / "slurm.sbatch.j2").read_text()
    match = re.search(rf"^{name}\(\) \{{.*?^\}}$", text, flags=re.M | re.S)
    assert match
    return match[0]


@pytest.mark.parametrize(
    ("status", "stopping", "reason", "extra", "concluded"),
    [
        (0, "none", "", "", "finished complete||"),
        (0, "none", "STOP", "", "stopped down||asked by STOP or a signal"),
        (0, "none", "SIGINT", "", "stopped down||asked by STOP or a signal"),
        (0, "time-limit", "SIGUSR1", "", "time-limit restart|stopped|"),
        (0, "time-limit", "time-limit", "", "time-limit restart|stopped|"),
        (0, "time-limit", "STOP", "", "stopped down||asked by STOP or a signal"),
        (0, "none", "SIGTERM", "", "preempted restart|preempted|pre-empted"),
        (1, "none", "", "", "failed restart|failed|"),
        (137, "none", "", "", "failed restart|killed|"),
        # A rank that fell over a lost node did not fail by itself.
        (1, "none", "", "lost='node n2 is down'", "failed restart|killed|node n2 is down"),
        # A job that is cancelled must not rise again, even when its ranks are gone before the script is told.
        (143, "none", "", "ending=1", "preempted restart|preempted|cancelled by scancel"),
    ],
)
def test_conclusion(
    tmp_path: Path, status: int, stopping: str, reason: str, extra: str, concluded: str
) -> None:
    event = f'{{"event": "stopped", "step": 4, "reason": "{reason}"}}' if reason else '{"event": "finished"}'
    (tmp_path / "events.jsonl").write_text(event + "\n" if status == 0 else "")
    (tmp_path / "rank-0").write_text(f"ended 1.0 {status}\n")
    names = ("happened", "terminated_by_slurm", "conclude")
    words = f"status={status} stopping={stopping} ending=0 lost= {extra}"
    script = "\n".join(["set -u", STUBS, *map(function, names), words, "conclude"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (concluded, "")
