"""The predicted timeline adds up to the price it is drawn for."""

from __future__ import annotations

import pytest

from planner.costs import assess, price
from planner.layout import Layout
from planner.plan import Plan
from planner.predicted_step import predicted_step
from profiles.presets import cluster_preset, model_preset


def plan_of(cluster: str, **fields: object) -> Plan:
    layout = Layout.model_validate({"global_batch": 16, "precision": "bf16"} | fields)
    return Plan(model=model_preset("gpt3-1.7b"), cluster=cluster_preset(cluster).with_nodes(1), layout=layout)


@pytest.mark.parametrize(
    ("cluster", "fields"),
    [
        ("dgx-h100", {"pp": 4, "dp": 2, "schedule": "1f1b"}),
        ("dgx-h100", {"pp": 4, "tp": 2, "schedule": "zb-v", "chunks": 2}),
        (
            "dgx-h100",
            {"pp": 2, "schedule": "custom", "global_batch": 1, "actions": ("0F0,0B0", "1F0,1I0,1W0")},
        ),
        ("cpu-2", {"pp": 2, "dp": 2, "precision": "fp32"}),
    ],
)
def test_every_rank_goes_through_the_priced_step(cluster: str, fields: dict[str, object]) -> None:
    plan = plan_of(cluster, **fields)
    line = assess(plan.model, plan.cluster, plan.layout).pipeline
    step = predicted_step(plan)
    assert step.seconds == pytest.approx(price(plan.model, plan.cluster, plan.layout).step_seconds)
    assert step.ranks == plan.layout.pp
    for share, busy in zip(step.shares, line.busy, strict=True):
        assert share.busy + share.wait + share.idle == pytest.approx(step.seconds)
        assert share.busy > busy  # the schedule's computation, and the optimizer
        assert share.idle >= -1e-9
    last = {cell.rank: cell for row in step.rows for cell in row}
    assert {cell.name for cell in last.values()} == {"optimizer"}


def test_steps_that_overlap_are_drawn_together() -> None:
    plan = plan_of("dgx-h100", pp=4, schedule="pipedream-2bw", flush_every=3)
    step = predicted_step(plan, steps=3)
    assert step.steps == 3
    assert sum(cell.kind == "U" for cell in step.cells) == 3 * 4
    assert step.seconds == pytest.approx(
        3 * price(plan.model, plan.cluster, plan.layout).step_seconds, rel=0.05
    )
