"""Starting the bench as a process: what comes back, and what a failure looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import bench
from planner.bench import BenchProgress, measure, tensor_parallel_degrees
from profiles.bench_request import BenchRequest
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.costs import CostTable
from profiles.documents import read_document, write_yaml
from profiles.errors import ConfigError, DependencyError, FieldError, RunError
from profiles.model import ModelSpec

MODEL = ModelSpec(layers=2, hidden=32, heads=6, kv_heads=2, head_dim=8, ffn_hidden=96, vocab=64, seq_len=16)


@pytest.fixture
def machine() -> ClusterSpec:
    device = DeviceSpec(
        name="a processor",
        vendor="cpu",
        memory_bytes=1 << 30,
        memory_bytes_per_second=1e9,
        flops_per_second={"fp32": 1e9},
    )
    link = LinkSpec(name="memory", kind="shared_memory", bytes_per_second=1e9, latency_seconds=1e-4)
    return ClusterSpec(name="here", device=device, devices_per_node=2, cores_per_node=2, links=(link,))


def test_degrees_divide_ranks_heads_and_width() -> None:
    assert tensor_parallel_degrees(MODEL, 12) == (1, 2)
    assert tensor_parallel_degrees(MODEL.model_copy(update={"kv_heads": 6}), 12) == (1, 2, 3, 6)


def test_measure_returns_what_it_kept(machine: ClusterSpec, tmp_path: Path) -> None:
    seen: list[BenchProgress] = []
    output = tmp_path / "costs.yaml"
    costs = measure(
        MODEL,
        ranks=2,
        seconds=1.0,
        microbatches=(2, 1, 2),
        cluster=machine,
        output=output,
        progress=seen.append,
    )
    assert costs == read_document(output).read(CostTable)
    assert (costs.machine, costs.device, costs.concurrent_ranks, costs.cores) == ("here", "a processor", 2, 2)
    assert costs.model == MODEL
    assert {cost.microbatch for cost in costs.layers} == {1, 2}
    assert {cost.tp for cost in costs.layers} == {1, 2}
    assert {cost.seq_len for cost in costs.layers} == {16}
    assert any("block" in progress.text for progress in seen)


def test_another_sequence_length_is_of_the_model_that_plan_prices(
    machine: ClusterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan --seq-len` takes the model at that length, and takes costs of no other."""
    asked: list[BenchRequest] = []

    def pretend(request: Path, output: Path, **options: object) -> None:
        asked.append(read_document(request).read(BenchRequest))
        model = asked[0].model
        write_yaml(output, CostTable(machine="here", device="a processor", model=model, concurrent_ranks=2))

    monkeypatch.setattr(bench, "_run", pretend)
    costs = measure(MODEL, ranks=2, seconds=1.0, seq_len=64, cluster=machine, output=tmp_path / "costs.yaml")
    assert (asked[0].seq_len, costs.model.seq_len) == (64, 64)


def test_a_degree_that_does_not_fit_is_refused_before_anything_starts(machine: ClusterSpec) -> None:
    with pytest.raises(FieldError, match="3 does not divide"):
        measure(MODEL, ranks=3, seconds=1.0, tensor_parallel=(3,), cluster=machine)


def test_an_output_of_another_model_is_refused_in_one_line(machine: ClusterSpec, tmp_path: Path) -> None:
    output = tmp_path / "costs.yaml"
    table = CostTable(machine="here", device="a processor", model=MODEL, concurrent_ranks=7)
    write_yaml(output, table)
    with pytest.raises(ConfigError, match=r"^\S*costs.yaml: holds measurements of another") as caught:
        measure(MODEL, ranks=2, seconds=1.0, cluster=machine, output=output)
    assert "\n" not in str(caught.value)
    assert read_document(output).read(CostTable) == table


def test_a_failing_bench_shows_its_last_words(
    machine: ClusterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'rank 1: out of memory' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(bench.sys, "executable", str(program))
    with pytest.raises(RunError, match="rank 1: out of memory"):
        measure(MODEL, ranks=1, seconds=1.0, cluster=machine)


def test_without_torch_it_says_how_to_get_it(machine: ClusterSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install"):
        measure(MODEL, ranks=1, seconds=1.0, cluster=machine)
