"""Training runs end to end: what they leave behind, the same on every layout, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress

import psutil
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from planner.estimate import Estimate
from planner.layout import Layout
from profiles.documents import validate


def layout(**fields):
    return Layout(**({"global_batch": 4, "precision": "fp32"} | fields))


def lines(run, name):
    path = run / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(run):
    return [line["loss"] for line in lines(run, "metrics")]


def checkpoint(run, step):
    """All tensors of a checkpoint, by name."""
    from torch.distributed.checkpoint import load

    reader = FileSystemReader(run / "checkpoints" / f"step-{step:08d}")
    entries = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it notices that it loads in one process
        load(state, storage_reader=reader, no_dist=True)
    return state


def test_a_run_leaves_its_artefacts(make_run, train_ranks):
    run = make_run(layout(pp=2, dp=2), steps=7)
    assert train_ranks(run, 4).wait() == [0, 0, 0, 0]
    metrics = lines(run, "metrics")
    assert [line["step"] for line in metrics] == list(range(1, 8))
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[-1]["tokens"] == 7 * 4 * 16
    for line in metrics:
        assert line["tokens_per_second"] == pytest.approx(4 * 16 / line["step_seconds"])
        assert line["mfu"] == pytest.approx(line["model_flops_per_device"] / 1e10)
        assert line["peak_bytes"] > 50e6
    assert [line["event"] for line in lines(run, "events")] == ["started", "checkpoint", "finished"]
    assert "loss" in (run / "logs" / "rank-0.log").read_text()

    record = json.loads((run / "record.json").read_text())
    estimate = validate(Estimate, {key: record[key] for key in record if key in Estimate.model_fields})
    assert sum(estimate.time.model_dump().values()) == pytest.approx(estimate.step_seconds)
    assert 0 < estimate.bubble_fraction < 1
    assert [entry.rank for entry in estimate.memory.per_stage] == [0, 1]
    assert record["steps"] == 7
    events = json.loads((run / "trace.json").read_text())["traceEvents"]
    cells = {(event["tid"], event["name"]) for event in events if event["ph"] == "X"}
    assert {(0, "0F0"), (0, "0B1"), (1, "1F1"), (1, "1B0"), (0, "optimizer")} <= cells


@pytest.mark.parametrize("fields", [{"tp": 2}, {"pp": 2, "schedule": "gpipe"}, {"dp": 2}])
def test_losses_do_not_depend_on_the_layout(make_run, train_ranks, fields):
    alone, spread = make_run(layout(), name="alone"), make_run(layout(**fields), name="spread")
    assert train_ranks(alone, 1).wait() == [0]
    assert train_ranks(spread, 2).wait() == [0, 0]
    assert losses(spread) == pytest.approx(losses(alone), rel=1e-5)
    before, after = (lines(run, "metrics")[-1]["grad_norm"] for run in (alone, spread))
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("fields", [{"tp": 2, "pp": 2}, {"pp": 2, "dp": 2}])
def test_a_resumed_run_is_the_same_bit_for_bit(make_run, train_ranks, fields):
    whole, parts = make_run(layout(**fields), name="whole"), make_run(layout(**fields), name="parts")
    assert train_ranks(whole, 4).wait() == [0] * 4
    (parts / "STOP").touch()
    assert train_ranks(parts, 4).wait() == [0] * 4
    assert [line["step"] for line in lines(parts, "metrics")] == [1]
    assert not (parts / "STOP").exists()
    assert train_ranks(parts, 4, resume=True).wait() == [0] * 4
    events = [(line["event"], line["step"]) for line in lines(parts, "events")]
    assert events == [
        ("started", 0),
        ("checkpoint", 1),
        ("stopped", 1),
        ("resumed", 1),
        ("checkpoint", 6),
        ("finished", 6),
    ]
    assert losses(parts) == losses(whole)
    expected, found = checkpoint(whole, 6), checkpoint(parts, 6)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("fields", "job", "message"),
    [
        ({"pp": 2}, {}, "2 ranks, 1 were started"),
        ({"zero": 1}, {}, "zero"),
        ({"schedule": "zigzag"}, {}, "zigzag"),
        ({}, {"data": {"path": "/nowhere/text"}}, "does not exist"),
    ],
)
def test_a_wrong_job_is_refused_with_one_message(make_run, train_ranks, fields, job, message):
    run = make_run(layout(**fields), **job)
    assert train_ranks(run, 1).wait() == [93]
    log = (run / "logs" / "rank-0.log").read_text()
    assert message in log
    assert "Traceback" not in log
    assert len(log.splitlines()) == 1
    assert not (run / "checkpoints").exists()


def torchrun(run, ranks):
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    words += ["-m", "runtime.train", "--job", str(run / "job.yaml"), "--log-files"]
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition, seconds=150.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def test_through_torchrun(make_run):
    run = make_run(layout(pp=2))
    assert torchrun(run, 2).wait(timeout=200) == 0
    assert len(losses(run)) == 6


def test_ranks_do_not_outlive_torchrun(make_run):
    run = make_run(layout(pp=2), steps=100000)
    process = torchrun(run, 2)
    try:
        wait_for(lambda: losses(run))
        ranks = psutil.Process(process.pid).children(recursive=True)
        assert len(ranks) >= 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    try:
        _, alive = psutil.wait_procs(ranks, timeout=5)
        assert not alive
    finally:
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.kill()
