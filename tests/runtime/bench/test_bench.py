"""The measuring process as its users start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from profiles.bench_request import BenchRequest
from profiles.costs import Calibration, CostTable
from profiles.documents import read_document, write_yaml
from profiles.model import ModelSpec

MODEL = ModelSpec(layers=2, hidden=32, heads=2, vocab=64, seq_len=16, tied_embeddings=False)
FIELDS = {
    "model": MODEL,
    "ranks": 2,
    "seconds": 2.0,
    "microbatches": (1, 2),
    "tensor_parallel": (1, 2),
    "seq_len": 16,
    "message_bytes": (64, 4096),
    "cores": 2,
}


@pytest.fixture(scope="module")
def request_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "request.yaml"
    write_yaml(path, BenchRequest(**FIELDS))
    return path


@pytest.fixture(scope="module")
def output(request_path: Path) -> Path:
    path = request_path.parent / "costs.yaml"
    run(request_path, path)
    return path


def command(request: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "runtime.bench", "--request", str(request), "--output", str(output)]


def run(request: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*command(request, output), *more], capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.stdout
    return done


def test_every_shape_is_measured(output: Path) -> None:
    costs = read_document(output).read(CostTable)
    shapes = {(c.component, c.phase, c.microbatch, c.tp) for c in costs.layers}
    assert shapes == {
        (component, phase, microbatch, tp)
        for component in ("block", "head", "embedding")
        for phase in ("forward", "backward", "input_gradient", "weight_gradient")
        for microbatch in (1, 2)
        for tp in (1, 2)
    }
    assert {(c.operation, c.ranks, c.groups, c.message_bytes) for c in costs.collectives} >= {
        (operation, 2, 1, size) for operation in ("all_reduce", "send_recv") for size in (64, 4096)
    }
    assert {c.operation for c in costs.collectives if c.busy_seconds} >= {"all_reduce"}
    assert not any(c.busy_seconds for c in costs.collectives if c.operation == "send_recv")
    assert costs.matmul_flops_per_second
    assert costs.optimizer_seconds_per_parameter
    if costs.overlap is not None:  # the last and least of the points: left out when the machine is slow
        assert costs.overlap.compute_slowdown > 0.3
    assert all(cost.cpu_seconds for cost in costs.layers)
    assert all(cost.samples >= 3 for cost in costs.layers)


def test_activation_bytes_follow_the_shapes(output: Path) -> None:
    costs = read_document(output).read(CostTable)
    kept = {(c.component, c.microbatch, c.tp): c.activation_bytes for c in costs.layers}
    for component in ("block", "head", "embedding"):
        for tp in (1, 2):
            assert kept[component, 2, tp] == pytest.approx(2 * kept[component, 1, tp], rel=0.02)
    block = kept["block", 1, 1]
    # Per token of width 32, fp32: at least the inputs of both norms, the four linears' inputs (1, 1, 1, 4
    # widths), and the scores' softmax unless a fused attention spares it; at most twice that.
    least = 16 * 32 * 4 * (1 + 1 + 1 + 4)
    assert least < block < 4 * least
    assert block / 2 < kept["block", 1, 2] < block


def test_an_earlier_run_is_gone_on_from(output: Path, tmp_path: Path) -> None:
    path, longer = tmp_path / "costs.yaml", tmp_path / "request.yaml"
    before = read_document(output).read(CostTable)
    kept = tuple(cost for cost in before.layers if (cost.component, cost.tp) != ("head", 2))
    write_yaml(path, before.model_copy(update={"layers": kept}))
    write_yaml(longer, BenchRequest(**(FIELDS | {"seconds": 4.0})))
    again = run(longer, path)
    assert again.returncode == 0
    first_round = [line for line in again.stderr.splitlines() if "round 1" in line]
    assert not [line for line in first_round if "block" in line]  # known: only later rounds refine it
    after = read_document(path).read(CostTable)
    assert {(c.component, c.phase, c.microbatch, c.tp) for c in after.layers} == {
        (c.component, c.phase, c.microbatch, c.tp) for c in before.layers
    }
    samples = {(c.component, c.phase, c.microbatch, c.tp): c.samples for c in after.layers}
    for old in kept:
        assert samples[old.component, old.phase, old.microbatch, old.tp] >= old.samples


def test_another_models_table_is_not_overwritten(output: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.yaml"
    write_yaml(request, BenchRequest(**(FIELDS | {"model": MODEL.model_copy(update={"layers": 3})})))
    before = output.read_bytes()
    refused = run(request, output)
    assert refused.returncode == 2
    assert "another model" in refused.stderr
    assert output.read_bytes() == before


def test_a_calibrated_table_is_not_mixed_with_fresh_measurements(
    request_path: Path, output: Path, tmp_path: Path
) -> None:
    path = tmp_path / "costs.yaml"
    calibration = Calibration(runs=("a run",), factors={"compute": 1.1}, error_before=0.1, error_after=0.0)
    table = read_document(output).read(CostTable).model_copy(update={"calibration": calibration})
    write_yaml(path, table)
    refused = run(request_path, path)
    assert refused.returncode == 2
    assert "calibrated" in refused.stderr


@pytest.mark.slow
def test_under_torchrun_the_processes_are_the_ranks(request_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "costs.yaml"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*torchrun, *command(request_path, output)[1:]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert {cost.tp for cost in read_document(output).read(CostTable).layers} == {1, 2}


def test_a_launcher_of_another_number_of_ranks_is_refused(request_path: Path, tmp_path: Path) -> None:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # what a launcher says to its only process
    words = command(request_path, tmp_path / "no.yaml")
    refused = subprocess.run(
        words, env=os.environ | alone, capture_output=True, text=True, timeout=240, check=False
    )
    assert refused.returncode == 2
    assert "2 ranks" in refused.stderr


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    """What the first round had measured by then is kept, and tells what is missing."""
    write_yaml(tmp_path / "request.yaml", BenchRequest(**(FIELDS | {"seconds": 24.0})))
    process = subprocess.Popen(
        command(tmp_path / "request.yaml", tmp_path / "costs.yaml"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "round 1" in line and (tmp_path / "costs.yaml").exists():
            break
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    process.stderr.close()
    assert not psutil.wait_procs(ranks, timeout=5)[1]
    kept = read_document(tmp_path / "costs.yaml").read(CostTable)
    assert {cost.component for cost in kept.layers} == {"block"}  # the first points
    assert any("not reached in the time" in note for note in kept.notes)


def test_the_bench_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    """However that process goes: here it is killed, and can clean up nothing."""
    write_yaml(tmp_path / "request.yaml", BenchRequest(**(FIELDS | {"seconds": 600.0})))
    words = command(tmp_path / "request.yaml", tmp_path / "costs.yaml")
    asking = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen({words!r} + ['--parent', str(os.getpid())], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", asking], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    bench = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdout.close()
    assert not psutil.wait_procs([bench], timeout=60)[1]


def test_ranks_end_when_their_parent_is_killed(request_path: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(request_path, tmp_path / "costs.yaml"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "round 1" in line:
            break
    ranks = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(rank.is_running() for rank in ranks):
        time.sleep(0.1)
    assert not [rank for rank in ranks if rank.is_running()]
