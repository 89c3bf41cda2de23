"""Jobs on a real SLURM: placed, chained, warned, stopped, started again. The trainer is a stand-in.

All jobs are sent at once, since they wait more than they compute; each test looks at its own.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from launcher.attempts import read_attempts
from launcher.run_directory import read_json_lines
from launcher.slurm import prepare
from launcher.slurm.submission import write
from profiles.site import SlurmOptions

STEPS, LONG = 30, 110
SLOW = {"TEST_STEP_SECONDS": "0.3"}


@pytest.fixture(scope="module")
def jobs(shared_cluster: Any, shared_runs: Any) -> dict[str, Any]:
    """Name → run directory and job ids. What happens to a job from outside is done here, too."""
    cluster, runs = shared_cluster, shared_runs
    sent: dict[str, Any] = {}

    def launch(name: str, *, plan: Any = None, run: dict[str, Any] | None = None, **options: Any) -> None:
        directory = runs.create(name, plan=plan, **(run or {}))
        options = {"process_model": "srun", "nodelist": "n1,n2"} | options
        sent[name] = (directory, cluster.launch(directory, **options))

    slow = {"steps": STEPS, "environment": SLOW}
    # In `spot` it gets SIGTERM and five seconds when a job in `urgent` wants its nodes.
    spot = {"partition": "spot", "nodelist": "n5,n6", "exclusive": True}
    launch("preempted", run=slow, process_model="torchrun", **spot)
    # SLURM looks every 30 s whether the limit of one minute, and the 55 s before it, are near.
    launch("short", run=slow | {"steps": LONG}, time_limit="1:00", grace_seconds=55)
    launch("array", run=slow, array=9)
    launch("singleton", run=slow, dependency="singleton", links=5)
    launch("stopped", run={"steps": 1000})
    launch("no-restart", run={"environment": {"TEST_EXIT": "93"}}, process_model="torchrun")
    launch("retries", run={"steps": 1000, "every": 1, "environment": {"TEST_FAIL_AFTER": "2"}}, retries=1)
    launch("no-progress", run={"environment": {"TEST_EXIT": "1"}})
    launch("one", run=slow)
    launch("two", run=slow)
    four = runs.plan(nodes=4, devices_per_node=2, tp=2, pp=4, global_batch=8)
    launch("elastic", plan=four, elastic=True, nodelist=None, exclude=others(cluster, "n3", "n4"))
    sent["three-nodes"] = on_three_nodes(cluster, runs)
    for name, part in (("array", "_1"), ("singleton", "")):
        warn(cluster, sent[name][0], sent[name][1][0] + part)
    cluster.wait(sent["stopped"][0].metrics, 60, "a first step")
    sent["stopped"][0].stop_path.write_text("")
    cluster.wait(lambda: len(sent["preempted"][0].metrics()) > 3, 60, "some steps")
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodelist=n5,n6", "--exclusive"]
    job = subprocess.run(
        [*urgent, "--output=/dev/null", "--wrap=sleep 0.5"], capture_output=True, text=True, check=True
    )
    cluster.jobs.append(job.stdout.strip())
    return sent


def others(cluster: Any, *hosts: str) -> str:
    return ",".join(sorted(cluster.hosts - set(hosts)))


def on_three_nodes(cluster: Any, runs: Any) -> tuple[Any, tuple[str, ...]]:
    """Send a job for two nodes as one for three."""
    run = runs.create("three-nodes")
    write(prepare(run.job(), run.path, options=SlurmOptions(time_limit="10:00", exclusive=False)))
    command = ["sbatch", "--parsable", "--nodes=3", "launch/job.sbatch"]
    job = subprocess.run(command, cwd=run.path, capture_output=True, text=True, check=True).stdout.strip()
    cluster.jobs.append(job)
    return run, (job,)


def warn(cluster: Any, run: Any, job: str) -> None:
    """Send the batch script what SLURM sends it before the time limit."""
    cluster.wait(run.metrics, 60, "a first step")
    # SLURM 22.05 delivers it to a link of an array and then goes on trying.
    subprocess.run(["timeout", "2", "scancel", "--batch", "--signal=USR1", job], check=False)


def ends(run: Any) -> list[tuple[str, str]]:
    lines = read_json_lines(run.path / "launch" / "attempts.jsonl")
    return [(line["outcome"], line["decision"]) for line in lines if line["event"] == "end"]


def places(run: Any) -> dict[int, str]:
    """Host of every rank, as the ranks themselves say it."""
    return {
        int(path.stem.split("-")[1]): path.read_text().split(" on ")[1].split(",")[0]
        for path in run.logs.glob("rank-*.log")
    }


def losses(run: Any) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in run.metrics()]


def uninterrupted(steps: int) -> float:
    """The loss of the stand-in after so many steps in one go."""
    loss = 1.0
    for step in range(1, steps + 1):
        loss = (loss * 1.0001 + step) % 7.0
    return loss


def queue(job: str) -> str:
    return subprocess.run(
        ["squeue", "--noheader", f"--jobs={job}", "--format=%T"], capture_output=True, text=True, check=False
    ).stdout


def test_ranks_run_where_the_plan_puts_them(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, (job,) = jobs["one"]
    assert shared_cluster.settle(run) == "finished"
    assert places(run) == {0: "n1", 1: "n1", 2: "n2", 3: "n2"}
    assert ends(run) == [("finished", "complete")]
    recorded = subprocess.run(
        ["scontrol", "write", "batch_script", job, "-"], capture_output=True, check=True
    ).stdout
    assert recorded == (run.path / "launch" / "job.sbatch").read_bytes()


def test_two_jobs_share_nodes(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    both = [jobs[name][0] for name in ("one", "two")]
    assert [shared_cluster.settle(run) for run in both] == ["finished", "finished"]
    assert places(both[0]) == places(both[1])
    starts = [run.events()[0]["time"] for run in both]
    finishes = [run.events()[-1]["time"] for run in both]
    assert max(starts) < min(finishes)  # they did run at once


def test_another_number_of_nodes_is_refused(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, _ = jobs["three-nodes"]
    assert shared_cluster.settle(run) == "wrong-allocation"
    assert "3 nodes allocated, the plan is for 2" in (run.path / "launch" / "attempts.jsonl").read_text()


def test_elastic_job_takes_the_nodes_there_are(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, _ = jobs["elastic"]
    assert shared_cluster.settle(run) == "finished"
    assert places(run) == {0: "n3", 1: "n3", 2: "n4", 3: "n4"}
    assert run.plan().layout.world_size == 4


def test_no_progress_stays_down(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, _ = jobs["no-progress"]
    assert shared_cluster.settle(run) == "failed"
    assert ends(run) == [("failed", "down")]
    lines = read_json_lines(run.path / "launch" / "attempts.jsonl")
    (last,) = [line for line in lines if line["event"] == "end"]
    assert "no checkpoint progress" in last["why"]


def test_stop_file_stops_for_good(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, _ = jobs["stopped"]
    assert shared_cluster.settle(run) == "stopped"
    assert list((run.path / "checkpoints").glob("step-*/complete"))


def test_do_not_restart(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, (job,) = jobs["no-restart"]
    assert shared_cluster.settle(run) == "do-not-restart"
    assert ends(run) == [("do-not-restart", "down")]
    shared_cluster.wait(lambda: shared_cluster.state(job) == "FAILED", 10, "failed")


def test_retry_budget(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    """A job that makes progress and still fails every time stays down once its retries are used."""
    run, _ = jobs["retries"]
    assert shared_cluster.settle(run, 90) == "failed"
    assert ends(run) == [("failed", "restart"), ("failed", "down")]


def test_array_chain(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, (job,) = jobs["array"]
    assert shared_cluster.settle(run, 90) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    shared_cluster.wait(lambda: "PENDING" not in queue(job), 10, "links that are not needed are cancelled")


def test_singleton_chain(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, links = jobs["singleton"]
    assert len(links) == 5
    assert shared_cluster.settle(run, 90) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    shared_cluster.wait(lambda: not any("PENDING" in queue(job) for job in links), 10, "the rest goes")


def test_time_limit_checkpoint_requeue_resume(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    (run, _), (whole, _) = jobs["short"], jobs["one"]
    assert shared_cluster.settle(run, 150) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert ends(run)[-1] == ("finished", "complete")
    assert shared_cluster.settle(whole) == "finished"
    assert [step for step, _ in losses(run)] == list(range(1, LONG + 1))  # every step once
    assert losses(run)[:STEPS] == losses(whole)
    assert losses(run)[-1][1] == uninterrupted(LONG)  # and the same bits


def test_preempted_job_saves_and_comes_back(shared_cluster: Any, jobs: dict[str, Any]) -> None:
    run, _ = jobs["preempted"]
    assert shared_cluster.settle(run, 120) == "finished"
    first, last = read_attempts(run)
    # On a busy machine the five seconds can pass before torchrun is gone.
    assert (first.outcome, first.decision) in {("preempted", "restart"), ("terminated", "left")}
    assert "pre-empted" in first.why
    assert (last.outcome, last.decision) == ("finished", "complete")
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
