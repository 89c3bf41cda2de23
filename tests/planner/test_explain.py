"""Formulas with numbers: every field, its value, its sources."""

import re

import pytest

from planner.costs import MODERN, Assessment, Software, assess
from planner.costs.software import DEEPSPEED, MATERIALISED, SHARDED
from planner.estimate import Estimate, Memory, RankMemory, TimeBreakdown
from planner.explain import explain
from planner.layout import Layout
from planner.plan import Plan
from profiles.costs import CostTable, LayerCost
from profiles.errors import ConfigError
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset


@pytest.fixture
def plan() -> Plan:
    return Plan(
        model=model_preset("gpt3-22b"),
        cluster=cluster_preset("selene").with_nodes(2),
        layout=Layout(tp=4, pp=2, dp=2, microbatch=1, global_batch=16, zero=1, recompute="selective"),
    )


UNITS = {
    "": 1, "s": 1, "ms": 1e-3, "µs": 1e-6, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "GB/s": 1e9, "TB/s": 1e12, "FLOP": 1, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12,
    "PFLOP": 1e15, "kFLOP": 1e3, "MFLOP/s": 1e6, "GFLOP/s": 1e9, "TFLOP/s": 1e12,
}  # fmt: skip


def evaluate(numbers: str) -> float:
    """Work out what is printed: numbers with their units, + − · / and brackets; words are passed over."""
    numbers = re.sub(r"\([a-z ]*\)|(?<![\d.])[A-Za-z\'-]*[a-z]-?\d+|\b(pipeline )?rank \d+", " ", numbers)
    text = ""
    for number, unit, sign in re.findall(
        r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: ?([a-zA-Zµ/]+)\b)?|([-+−·/()])", numbers
    ):
        text += f"({float(number) * UNITS.get(unit, 1)})" if number else {"−": "-", "·": "*"}.get(sign, sign)
    return float(eval(text))


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


LAYOUTS = [
    {"tp": 4, "pp": 2, "dp": 2, "zero": 1, "recompute": "selective"},
    {"tp": 2, "pp": 4, "dp": 2, "recompute": "full", "schedule": "interleaved-1f1b", "chunks": 2},
    {"dp": 4, "zero": 3},
    {"tp": 8, "pp": 2, "sequence_parallel": True, "overlap": {"pp": False, "dp": False}, "schedule": "zb-h1"},
    {"pp": 4, "dp": 2, "zero": 2, "recompute": ("full", "full", "none", "selective"), "precision": "fp32"},
]
SUMMED = {"memory.per_stage", "fits"}


@pytest.mark.parametrize("software", [MODERN, MATERIALISED, SHARDED, DEEPSPEED], ids=lambda s: s.name)
@pytest.mark.parametrize("options", LAYOUTS)
def test_what_is_printed_works_out_to_the_value(
    plan: Plan, options: dict[str, object], software: Software
) -> None:
    layout = Layout.model_validate({"global_batch": 32, "microbatch": 2, **options})
    changed = plan.model_copy(update={"layout": layout})
    assessment = assess(changed.model, changed.cluster, layout, software=software)
    check_printed(changed, assessment)


def check_printed(plan: Plan, assessment: Assessment) -> None:
    for entry in explain(plan, assessment):
        if entry.field not in SUMMED:
            printed = re.split(r", (?:slowest )?pipeline rank|, at least|; ", entry.numbers)[0]
            got = max(0.0, evaluate(printed))
            assert got == pytest.approx(entry.value, rel=0.02, abs=2e-3 * scale(entry.field, assessment)), (
                entry
            )


def test_measured_costs_work_out_too_on_shared_processors() -> None:
    model = ModelSpec(name="tiny", layers=4, hidden=32, heads=4, vocab=64, seq_len=16)
    shape = {"microbatch": 1, "seq_len": 16, "spread_seconds": 0.0, "samples": 9}
    layers = tuple(
        LayerCost(component=component, phase=phase, seconds=seconds, cpu_seconds=seconds, **shape)  # type: ignore[arg-type]
        for component, seconds in (("block", 0.01), ("embedding", 0.002), ("head", 0.005))
        for phase in ("forward", "backward")
    )
    costs = CostTable(
        machine="here", device="a processor", model=model, concurrent_ranks=2, layers=layers,
        optimizer_seconds_per_parameter=3e-9, step_overhead_seconds=0.003, process_bytes=10**8,
    )  # fmt: skip
    cluster = cluster_preset("cpu-2").with_nodes(2)
    for pp, dp in ((1, 1), (2, 1), (2, 2)):
        layout = Layout(pp=pp, dp=dp, global_batch=8, precision="fp32")
        plan = Plan(model=model, cluster=cluster, layout=layout)
        assessment = assess(model, cluster.with_nodes(1), layout, costs=costs)
        assert assessment.pipeline.shared == (pp * dp > 2)
        check_printed(plan, assessment)


def scale(field: str, assessment: Assessment) -> float:
    """What rounding to three digits may leave of a difference between numbers of this size."""
    return assessment.estimate.step_seconds if field.startswith("time") else 1.0


def test_every_field_of_the_estimate_has_a_formula_and_a_source(plan: Plan) -> None:
    entries = {entry.field: entry for entry in explain(plan, assess(plan.model, plan.cluster, plan.layout))}
    told = {"time", "memory", "provenance", "notes"}
    fields = {name for name in Estimate.model_fields if name not in told}
    fields |= {f"time.{name}" for name in TimeBreakdown.model_fields}
    fields |= {f"memory.{name}" for name in (*Memory.model_fields, *RankMemory.model_fields)}
    assert fields - {"memory.rank", "memory.total"} == set(entries)
    assert all(entry.formula and entry.numbers and entry.sources for entry in entries.values())


def test_a_group_stands_for_its_fields(plan: Plan) -> None:
    assessment = assess(plan.model, plan.cluster, plan.layout)
    assert [entry.field for entry in explain(plan, assessment, "time")] == [
        f"time.{name}" for name in TimeBreakdown.model_fields
    ]
