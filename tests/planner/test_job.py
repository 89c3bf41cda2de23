"""job.yaml: a plan inline or by name, or a bare plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.job import Job, OptimizerSpec, load_job, locate_in_plan
from profiles.errors import ConfigError, FieldError

PLAN = """\
kind: plan
model: {layers: 4, hidden: 64, heads: 4, vocab: 256, seq_len: 32}
cluster:
  device: cpu
  devices_per_node: 4
  links: [{name: memory, kind: shared_memory, bytes_per_second: 1e9, latency_seconds: 1e-4}]
layout: {tp: 2, pp: 2, global_batch: 4, precision: fp32}
"""


def indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def test_a_plan_may_be_named_or_written_out(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "named.yaml").write_text("kind: job\nplan: plan.yaml\nsteps: 7\n")
    (tmp_path / "inline.yaml").write_text(f"kind: job\nsteps: 7\nplan:\n{indent(PLAN)}")
    assert load_job(tmp_path / "named.yaml") == load_job(tmp_path / "inline.yaml")


def test_a_bare_plan_is_a_job_with_every_default(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PLAN)
    job = load_job(tmp_path / "mine.yaml")
    assert job.name == "mine"
    assert job.steps == 100
    assert job.plan.layout.world_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: job\nplan: absent.yaml\n", "absent.yaml: No such file"),
        ("kind: job\nplan: plan.yaml\nsteps: 0\n", "job.yaml:3:1: steps: must be greater than 0"),
        ("kind: job\nplan: plan.yaml\noptimizer: {lr: 1e-3}\n", "job.yaml:3:13: optimizer.lr: unknown key"),
        (
            f"kind: job\nplan:\n{indent(PLAN.replace('tp: 2', 'tp: 3'))}",
            "job.yaml:9:12: plan.layout.tp: 3 does not",
        ),
        ("kind: cluster\n", "job.yaml:1:1: kind: must be 'job'"),
        (
            "kind: job\nplan: [1]\n",
            "job.yaml:2:1: plan: must be the name of a plan's file, or the plan's own",
        ),
        ("kind: job\nplan: plan.yaml\ndata: {holdout: 1.0}\n", "data.holdout: must be less than 1"),
        ("kind: job\nplan: plan.yaml\ndata: {path: ''}\n", "data.path: String should have at least 1"),
        ("kind: job\nplan: plan.yaml\noptimizer: {beta2: 1.0}\n", "optimizer.beta2: must be less than 1"),
        (
            "kind: job\nplan: plan.yaml\ntimeout_seconds: 1e300\n",
            "timeout_seconds: must be less than or equal",
        ),
        ("kind: job\nplan: plan.yaml\ntrace_step: 0\n", "trace_step: must be greater than 0"),
        (
            "kind: job\nplan: plan.yaml\nsteps: 3\ntrace_step: 4\n",
            "job.yaml:4:1: trace_step: must be at most steps = 3: no later step is run, not 4",
        ),
        ("kind: job\nplan: plan.yaml\ntrace_step: 101\n", "trace_step: must be at most steps = 100"),
        (
            "kind: job\nplan: plan.yaml\noptimizer: {final_learning_rate: 0.1}\n",
            "optimizer.final_learning_rate: must be at most learning_rate = 0.0003",
        ),
        ("- kind\n", "job.yaml:1:1: must be an object"),
        ("12\n", "job.yaml:1:1: "),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_job(tmp_path / "job.yaml")
    assert message in str(caught.value)


def test_a_low_learning_rate_never_rises_to_the_default_end() -> None:
    assert OptimizerSpec(learning_rate=1e-6).final_learning_rate == 1e-6
    assert (
        OptimizerSpec(learning_rate=1e-2).final_learning_rate == OptimizerSpec().final_learning_rate == 3e-5
    )


def test_data_lies_beside_the_job_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    job = tmp_path / "job.yaml"
    job.write_text("kind: job\nplan: plan.yaml\ndata: {path: texts/mine}\n")
    assert load_job(job).data.path == str(tmp_path / "texts" / "mine")
    job.write_text("kind: job\nplan: plan.yaml\ndata: {path: /texts/mine}\n")
    assert load_job(job).data.path == "/texts/mine"


def test_the_last_step_may_be_traced_and_a_job_made_in_memory_obeys_too(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "job.yaml").write_text("kind: job\nplan: plan.yaml\nsteps: 3\ntrace_step: 3\n")
    job = load_job(tmp_path / "job.yaml")
    assert job.trace_step == 3
    with pytest.raises(ValueError, match="at most steps = 3"):
        Job(plan=job.plan, steps=3, trace_step=4)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (PLAN, "job.yaml:7:41: layout.precision: no"),
        ("kind: job\nplan: plan.yaml\n", "plan.yaml:7:41: layout.precision: no"),
        (f"kind: job\nplan:\n{indent(PLAN)}", "job.yaml:9:43: plan.layout.precision: no"),
    ],
)
def test_a_field_of_the_plan_is_found_in_the_file_that_holds_it(
    tmp_path: Path, text: str, place: str
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "job.yaml").write_text(text)
    error = locate_in_plan(tmp_path / "job.yaml", FieldError(("layout", "precision"), "no"))
    assert str(error).endswith(f"/{place}")
