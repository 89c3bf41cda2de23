"""Placement: every rank once, nodes filled in order, axes over the links the layout implies."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.slurm.placement import place


@pytest.mark.parametrize("order", ["tp-dp-pp", "pp-dp-tp", "dp-pp-tp"])
def test_ranks_fill_nodes_in_order(runs: Any, order: str) -> None:
    plan = runs.gpu_plan(tp=4, pp=2, dp=2, rank_order=order)
    placement = place(plan)
    assert (placement.nodes, placement.ranks_per_node) == (2, 8)
    assert [(p.node, p.device) for p in placement.ranks] == [(r // 8, r % 8) for r in range(16)]
    assert len({p.coordinates for p in placement.ranks}) == 16
    assert all(plan.layout.rank(p.coordinates) == p.rank for p in placement.ranks)


def test_the_innermost_axis_stays_on_the_fast_link(runs: Any) -> None:
    axes = {axis.axis: axis for axis in place(runs.gpu_plan(tp=8, pp=2, dp=1)).axes}
    assert axes["tp"].nodes_per_group == 1
    assert axes["pp"].nodes_per_group == 2
    assert axes["tp"].link != axes["pp"].link
    assert axes["dp"].link == "none"
    turned = {a.axis: a for a in place(runs.gpu_plan(tp=8, pp=2, dp=1, rank_order="pp-dp-tp")).axes}
    assert turned["tp"].nodes_per_group == 2
    assert turned["pp"].nodes_per_group == 1


def test_less_than_a_node(runs: Any) -> None:
    placement = place(runs.gpu_plan(nodes=1, tp=2, pp=2, dp=1))
    assert (placement.nodes, placement.ranks_per_node) == (1, 4)
