"""A job that no machine could run is refused with the field that has to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.preflight.job import check_job
from planner.job import DataSpec, Job
from planner.plan import plan_from_data
from profiles.errors import ConfigError


def job(*, data: DataSpec | None = None, environment: dict[str, str] | None = None, **layout: Any) -> Job:
    layout = {"pp": 2, "global_batch": 8, "precision": "fp32", **layout}
    plan = {"kind": "plan", "model": {"preset": "bytes-1m"}, "cluster": {"preset": "cpu-2"}, "layout": layout}
    return Job(plan=plan_from_data(plan, Path()), data=data or DataSpec(), environment=environment or {})


def test_a_sound_job_passes() -> None:
    check_job(job(environment={"NOTE": "x"}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"zero": 1}, "layout.zero"),
        ({"data": DataSpec(path="/nowhere/text")}, "/nowhere/text does not exist"),
        ({"data": DataSpec(holdout=0.9999)}, "built-in text holds [0-9]+ bytes of text, one sequence needs"),
        ({"environment": {"WANDB_API_KEY": "x"}}, "looks like a secret"),
        ({"environment": {"RANK": "0"}}, "is set by the shell, SLURM or Cuboid"),
    ],
)
def test_what_cannot_run_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_job(job(**wrong))


def test_a_vocabulary_that_does_not_hold_every_byte_is_refused() -> None:
    small = job()
    model = small.plan.model.model_copy(update={"vocab": 255})
    with pytest.raises(ConfigError, match="vocab: 255 is too small for text read as bytes; use 256"):
        check_job(small.model_copy(update={"plan": small.plan.model_copy(update={"model": model})}))


def test_a_layout_that_the_runtime_cannot_run_is_refused_with_its_place(tmp_path: Path) -> None:
    source = tmp_path / "plan.yaml"
    source.write_text("kind: plan\nlayout:\n  zero: 1\n")
    with pytest.raises(ConfigError, match=r"plan\.yaml:3:3: layout\.zero: .* runs ZeRO 0, not 1"):
        check_job(job(zero=1), source=source)
