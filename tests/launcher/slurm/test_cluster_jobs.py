"""Jobs on a real SLURM: placed, chained, warned, stopped, started again. The trainer is a stand-in."""

from __future__ import annotations

import subprocess
from typing import Any

from launcher.run_directory import read_json_lines
from launcher.slurm import prepare
from launcher.slurm.submission import write
from profiles.site import SlurmOptions


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


def test_ranks_run_where_the_plan_puts_them(cluster: Any, runs: Any) -> None:
    run = runs.create()
    (job,) = cluster.launch(run, process_model="srun")
    assert cluster.settle(run) == "finished"
    assert places(run) == {0: "n1", 1: "n1", 2: "n2", 3: "n2"}
    assert ends(run) == [("finished", "complete")]
    recorded = subprocess.run(
        ["scontrol", "write", "batch_script", job, "-"], capture_output=True, check=True
    ).stdout
    assert recorded == (run.path / "launch" / "job.sbatch").read_bytes()


def test_two_jobs_share_nodes(cluster: Any, runs: Any) -> None:
    both = [runs.create(name, steps=40) for name in ("one", "two")]
    for run in both:
        cluster.launch(run, process_model="srun", nodelist="n1,n2")
    assert [cluster.settle(run) for run in both] == ["finished", "finished"]
    assert places(both[0]) == places(both[1])
    starts = [run.events()[0]["time"] for run in both]
    finishes = [run.events()[-1]["time"] for run in both]
    assert max(starts) < min(finishes)  # they did run at once


def test_time_limit_checkpoint_requeue_resume(cluster: Any, runs: Any) -> None:
    # The warning comes 40 s to 100 s before the limit of one minute, so at once.
    slow = {"TEST_STEP_SECONDS": "0.3"}
    run = runs.create("short", steps=40, environment=slow)
    whole = runs.create("whole", steps=40)
    cluster.launch(run, process_model="srun", time_limit="1:00", grace_seconds=55)
    cluster.launch(whole, process_model="srun")
    assert cluster.settle(run, 150) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert ends(run)[-1] == ("finished", "complete")
    assert cluster.settle(whole) == "finished"
    assert losses(run) == losses(whole)  # every step once, and the same bits


def test_array_chain(cluster: Any, runs: Any) -> None:
    run = runs.create(steps=40, environment={"TEST_STEP_SECONDS": "0.3"})
    (job,) = cluster.launch(run, process_model="srun", array=9)
    warn(cluster, run, f"{job}_1")
    assert cluster.settle(run, 60) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert [step for step, _ in losses(run)] == list(range(1, 41))
    cluster.wait(lambda: "PENDING" not in queue(job), 10, "links that are no longer needed are cancelled")


def test_singleton_chain(cluster: Any, runs: Any) -> None:
    run = runs.create(steps=40, environment={"TEST_STEP_SECONDS": "0.3"})
    jobs = cluster.launch(run, process_model="srun", dependency="singleton", links=5)
    assert len(jobs) == 5
    warn(cluster, run, jobs[0])
    assert cluster.settle(run, 60) == "finished"
    assert ends(run)[0] == ("time-limit", "restart")
    assert [step for step, _ in losses(run)] == list(range(1, 41))
    cluster.wait(lambda: not any("PENDING" in queue(job) for job in jobs), 10, "the rest of the chain goes")


def warn(cluster: Any, run: Any, job: str) -> None:
    """Send the batch script what SLURM sends it before the time limit."""
    cluster.wait(run.metrics, 40, "a first step")
    # SLURM 22.05 delivers it to a link of an array and then goes on trying.
    subprocess.run(["timeout", "2", "scancel", "--batch", "--signal=USR1", job], check=False)


def queue(job: str) -> str:
    return subprocess.run(
        ["squeue", "--noheader", f"--jobs={job}", "--format=%T"], capture_output=True, text=True, check=False
    ).stdout


def test_stop_file_stops_for_good(cluster: Any, runs: Any) -> None:
    run = runs.create(steps=1000)
    cluster.launch(run, process_model="torchrun")
    cluster.wait(run.metrics, 40, "a first step")
    run.stop_path.write_text("")
    assert cluster.settle(run) == "stopped"
    assert list((run.path / "checkpoints").glob("step-*/complete"))


def test_do_not_restart(cluster: Any, runs: Any) -> None:
    run = runs.create(environment={"TEST_EXIT": "93"})
    (job,) = cluster.launch(run, process_model="torchrun")
    assert cluster.settle(run) == "do-not-restart"
    assert ends(run) == [("do-not-restart", "down")]
    cluster.wait(lambda: cluster.state(job) == "FAILED", 10, "failed")


def test_no_progress_stays_down(cluster: Any, runs: Any) -> None:
    run = runs.create(environment={"TEST_EXIT": "1"})
    cluster.launch(run, process_model="srun")
    assert cluster.settle(run) == "failed"
    assert ends(run) == [("failed", "down")]
    (last,) = [
        line for line in read_json_lines(run.path / "launch" / "attempts.jsonl") if line["event"] == "end"
    ]
    assert "no checkpoint progress" in last["why"]


def test_retry_budget(cluster: Any, runs: Any) -> None:
    """A job that makes progress and still fails every time stays down once its retries are used."""
    run = runs.create(steps=1000, every=1, environment={"TEST_FAIL_AFTER": "2"})
    cluster.launch(run, process_model="srun", retries=1)
    assert cluster.settle(run, 90) == "failed"
    assert ends(run) == [("failed", "restart"), ("failed", "down")]


def test_elastic_job_takes_the_nodes_there_are(cluster: Any, runs: Any) -> None:
    plan = runs.plan(nodes=4, devices_per_node=2, tp=2, pp=4, global_batch=8)
    run = runs.create(plan=plan)
    cluster.launch(run, process_model="srun", elastic=True, exclude="n1,n2")
    assert cluster.settle(run, 60) == "finished"
    assert places(run) == {0: "n3", 1: "n3", 2: "n4", 3: "n4"}
    assert run.plan().layout.world_size == 4


def test_another_number_of_nodes_is_refused(cluster: Any, runs: Any) -> None:
    run = runs.create()
    submission = prepare(run.job(), run.path, options=SlurmOptions(time_limit="10:00", exclusive=False))
    write(submission)
    command = ["sbatch", "--parsable", "--nodes=3", "launch/job.sbatch"]
    sent = subprocess.run(command, cwd=run.path, capture_output=True, text=True, check=True)
    cluster.jobs.append(sent.stdout.strip())
    assert cluster.settle(run, 60) == "wrong-allocation"
    assert "3 nodes allocated, the plan is for 2" in (run.path / "launch" / "attempts.jsonl").read_text()


def test_preempted_job_saves_and_comes_back(cluster: Any, runs: Any) -> None:
    """A job in `spot` gets SIGTERM and five seconds when one in `urgent` wants its nodes."""
    run = runs.create(steps=40, environment={"TEST_STEP_SECONDS": "0.3"})
    cluster.launch(run, process_model="torchrun", partition="spot", nodelist="n1,n2", exclusive=True)
    cluster.wait(lambda: len(run.metrics()) > 3, 60, "some steps")
    urgent = [
        "sbatch",
        "--parsable",
        "--partition=urgent",
        "--nodelist=n1,n2",
        "--exclusive",
        "--output=/dev/null",
    ]
    sent = subprocess.run(
        [*urgent, "--wrap=sleep 1"], capture_output=True, text=True, check=True, cwd=run.path
    )
    cluster.jobs.append(sent.stdout.strip())
    assert cluster.settle(run, 90) == "finished"
    assert ends(run) == [("preempted", "restart"), ("finished", "complete")]
    assert [step for step, _ in losses(run)] == list(range(1, 41))
