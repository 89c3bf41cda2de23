"""Planning again for the nodes that there are."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.slurm.elastic import main, plan_for, replan
from launcher.slurm.placement import place
from profiles.errors import InfeasibleError


def test_same_training_on_other_nodes(runs: Any) -> None:
    plan = runs.plan(nodes=4, devices_per_node=2, tp=2, pp=4, global_batch=8)
    for nodes in (1, 2, 4):
        found = replan(plan, nodes)
        assert place(found).nodes == nodes
        assert found.layout.world_size == 2 * nodes
        assert found.layout.global_batch == 8
        assert found.layout.precision == plan.layout.precision
        assert found.model == plan.model


def test_the_plan_that_was_sent_comes_back(runs: Any) -> None:
    run = runs.create(plan=runs.plan(nodes=4, devices_per_node=2, tp=2, pp=4, global_batch=8))
    sent = run.plan()
    assert main([str(run.path), "2"]) == 0
    assert place(run.plan()).nodes == 2
    assert run.job().plan == run.plan()
    assert main([str(run.path), "4"]) == 0
    assert run.plan() == sent
    assert plan_for(run, 2).layout.world_size == 4


def test_refuses_what_does_not_fit(runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.create(plan=runs.plan(nodes=2, devices_per_node=2, tp=1, pp=4, global_batch=1))
    before = run.plan()
    with pytest.raises(InfeasibleError):
        replan(before, 97)
    assert main([str(run.path), "97"]) == 3
    assert run.plan() == before
    assert main([str(run.path)]) == 2
    assert "usage" in capsys.readouterr().err
