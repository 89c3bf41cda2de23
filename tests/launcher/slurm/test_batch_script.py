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
        (0, "time-limit", "SIGUSR1", "touch STOP", "stopped down||asked by STOP or a signal"),
        (0, "time-limit", "SIGUSR1", "echo time-limit >STOP", "time-limit restart|stopped|"),
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
    names = ("happened", "asked_to_stop", "terminated_by_slurm", "conclude")
    words = [f"status={status} stopping={stopping} ending=0 lost=", extra]
    script = "\n".join(["set -uo pipefail", STUBS, *map(function, names), *words, "conclude"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (concluded, "")


@pytest.mark.parametrize(
    ("about", "state", "cause"),
    [
        ("JobState=CANCELLED Restarts=0 PreemptTime=None", "COMPLETING", "cancelled by scancel"),
        ("JobState=PENDING Restarts=1 PreemptTime=None", "PENDING", "requeued by SLURM or an administrator"),
        ("JobState=RUNNING Restarts=0 PreemptTime=None", "RUNNING", "pre-empted, or a node"),
        ("JobState=PENDING Restarts=1 PreemptTime=2026-11-22T14:09:26", "PENDING", "pre-empted"),
    ],
)
def test_why_slurm_ends_a_job(tmp_path: Path, about: str, state: str, cause: str) -> None:
    tools = f"scontrol() {{ echo 'JobId=1 {about} '; }}; squeue() {{ echo {state}; }}; sinfo() {{ :; }}"
    tools += '; timeout() { shift; "$@"; }; say() { :; }; record() { echo "${@: -1}"; }'
    words = "state=$PWD attempt=1.0 step_before=0 SLURM_JOB_NODELIST=n1 job=1"
    names = ("lost_nodes", "still_running", "terminated")
    script = "\n".join(["set -uo pipefail", tools, words, *map(function, names), "terminated"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"why={cause}")
    assert done.stderr == ""


def test_the_first_failure_is_a_failure(tmp_path: Path) -> None:
    """Neither a rank that ended well, nor a line whose time is missing."""
    folder = tmp_path / "ranks"
    folder.mkdir()
    for name, line in (("rank-0", "ended  0"), ("rank-1", "ended 5.5 137"), ("node-0", "ended 6.5 1")):
        (folder / name).write_text(f"started 1.0 n1 7\n{line}\n")
    (folder / "rank-2").write_text("started 1.0 n1 7\nended 4.0 0\n")
    script = f"set -u\nranks={folder}\n{function('first_failure')}\nfirst_failure"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "5.5 137 1\n"


@pytest.mark.parametrize(("status", "concluded"), [(0, "finished complete"), (1, "do-not-restart down")])
def test_much_that_follows_does_not_hide_what_happened(tmp_path: Path, status: int, concluded: str) -> None:
    """A reader that stops at the first match must not make the writer's signal the answer."""
    rest = "more\n" * 200_000
    (tmp_path / "events.jsonl").write_text('{"event": "finished"}\n' + rest)
    (tmp_path / "rank-0").write_text("ended 1.0 93\n" + rest)
    (tmp_path / "rank-1").write_text(rest)
    words = f"status={status} stopping=none ending=0 lost="
    names = ("happened", "asked_to_stop", "terminated_by_slurm", "conclude")
    script = "\n".join(["set -uo pipefail", STUBS, *map(function, names), words, "conclude"])
    for _ in range(5):
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(concluded)
        assert done.stderr == ""
