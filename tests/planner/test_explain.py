"""Formulas with numbers: every field, its value, its sources."""

import pytest

from planner.costs import assess
from planner.explain import explain
from planner.layout import Layout
from planner.plan import Plan
from profiles.errors import ConfigError
from profiles.presets import cluster_preset, model_preset


@pytest.fixture
def plan() -> Plan:
    return Plan(
        model=model_preset("gpt3-22b"),
        cluster=cluster_preset("selene").with_nodes(2),
        layout=Layout(tp=4, pp=2, dp=2, microbatch=1, global_batch=16, zero=1, recompute="selective"),
    )


def test_every_number_of_the_estimate_is_explained_with_its_value(plan: Plan) -> None:
    assessment = assess(plan.model, plan.cluster, plan.layout)
    values = {entry.field: entry.value for entry in explain(plan, assessment)}
    estimate = assessment.estimate
    assert values["step_seconds"] == estimate.step_seconds
    for name, seconds in estimate.time.model_dump().items():
        assert values[f"time.{name}"] == seconds
    peak = max(estimate.memory.per_stage, key=lambda row: row.total)
    for name in ("weights", "gradients", "optimizer", "activations", "workspace"):
        assert values[f"memory.{name}"] == getattr(peak, name)
    assert values["mfu"] == estimate.mfu


def test_the_numbers_put_in_give_the_value(plan: Plan) -> None:
    assessment = assess(plan.model, plan.cluster, plan.layout)
    (entry,) = explain(plan, assessment, "memory.weights")
    rank = max(assessment.estimate.memory.per_stage, key=lambda row: row.total).rank
    assert entry.value == assessment.parameters[rank] * 2
    assert "/ 1, pipeline rank" in entry.numbers  # ZeRO-1 does not shard weights
    (entry,) = explain(plan, assessment, "optimizer")[1:]
    assert "/ 2," in entry.numbers


def test_what_follows_the_sum_of_gradients_depends_on_who_updates(plan: Plan) -> None:
    for zero, words in ((0, False), (1, True)):
        changed = plan.model_copy(update={"layout": plan.layout.model_copy(update={"zero": zero})})
        (entry,) = explain(changed, assess(changed.model, changed.cluster, changed.layout), "time.dp_comm")
        assert ("updated weights" in entry.formula) == words


def test_constants_carry_their_sources(plan: Plan) -> None:
    assessment = assess(plan.model, plan.cluster, plan.layout)
    (forward,) = explain(plan, assessment, "time.forward")
    assert any("gemm_efficiency = 0." in source and "fitted" in source for source in forward.sources)
    (traffic,) = explain(plan, assessment, "time.tp_comm")
    assert any("nvlink3" in source and "GTC" in source for source in traffic.sources)


def test_an_unknown_field_is_refused_with_the_known_ones(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"no field 'speed'.*time\.bubble"):
        explain(plan, assess(plan.model, plan.cluster, plan.layout), "speed")
