"""This machine is judged like a node: what keeps a run from starting, what is only said, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.preflight.facts import gather
from launcher.preflight.here import check_here
from planner.job import CheckpointSpec, Job
from planner.plan import plan_from_data
from profiles.cluster import ClusterSpec
from profiles.errors import PreflightError


def job(cores: int | None, *, cluster: object = None, keep: int = 2) -> Job:
    spec = cluster or {"preset": "cpu-2"}
    data = {"kind": "plan", "model": {"preset": "bytes-1m"}, "cluster": spec}
    plan = plan_from_data({**data, "layout": {"pp": 2, "global_batch": 8, "precision": "fp32"}}, Path())
    here: ClusterSpec = plan.cluster.model_copy(update={"cores_per_node": cores})
    return Job(plan=plan.model_copy(update={"cluster": here}), checkpoint=CheckpointSpec(keep=keep))


def test_this_machine_is_fit_for_a_plan_made_here(tmp_path: Path) -> None:
    cores = gather(tmp_path, tmp_path).cores
    assert [trouble.check for trouble in check_here(job(cores), tmp_path / "runs", "strict")] == []
    assert not (tmp_path / "runs").exists()


def test_fewer_cores_than_planned_refuse_warn_or_pass(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="the plan was made for 4096"):
        check_here(job(4096), tmp_path, "strict")
    (trouble,) = check_here(job(4096), tmp_path, "warn")
    assert trouble.check == "devices"
    assert check_here(job(4096), tmp_path, "off") == ()


def test_a_plan_for_accelerators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="0 devices, the plan puts 2 ranks on a node"):
        check_here(job(None, cluster={"preset": "dgx-h100", "nodes": 1}), tmp_path, "strict")


def test_checkpoints_have_to_fit_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="checkpoints need"):
        check_here(job(None, keep=10**9), tmp_path, "strict")
