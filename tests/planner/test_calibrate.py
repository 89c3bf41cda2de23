"""Calibration against worlds whose truth is known: the planner's own price of a table scaled by hand."""

from __future__ import annotations

import pytest

from planner.calibrate import MeasuredRun, calibrate
from planner.costs import price
from planner.estimate import Estimate
from planner.layout import Layout
from planner.plan import Plan
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.costs import CollectiveCost, CostTable, LayerCost
from profiles.errors import ConfigError
from profiles.model import ModelSpec

MODEL = ModelSpec(layers=4, hidden=64, heads=4, vocab=256, seq_len=32)
LAYOUTS = [
    Layout(tp=tp, pp=pp, dp=2 // (tp * pp), microbatch=microbatch, global_batch=8, precision="fp32")
    for tp, pp in ((1, 1), (2, 1), (1, 2))
    for microbatch in (1, 2, 4)
]


def cluster() -> ClusterSpec:
    device = DeviceSpec(
        name="a processor",
        vendor="cpu",
        memory_bytes=1 << 34,
        memory_bytes_per_second=1e10,
        flops_per_second={"fp32": 1e11},
    )
    link = LinkSpec(name="memory", kind="shared_memory", bytes_per_second=1e9, latency_seconds=1e-4)
    return ClusterSpec(device=device, devices_per_node=2, cores_per_node=2, links=(link,))


def table(*, compute: float = 1.0, collectives: float = 1.0, sends: float = 1.0) -> CostTable:
    layers = tuple(
        LayerCost(
            component=component,
            phase=phase,
            microbatch=microbatch,
            seq_len=32,
            tp=tp,
            seconds=compute * weight * (0.2e-3 + 1e-3 * microbatch / tp),
            spread_seconds=0.0,
            samples=5,
        )
        for component, weight in (("block", 1.0), ("embedding", 0.1), ("head", 0.3))
        for phase in ("forward", "input_gradient", "weight_gradient")
        for microbatch in (1, 2, 4)
        for tp in (1, 2)
    )
    messages = tuple(
        CollectiveCost(
            operation=operation,
            ranks=2,
            message_bytes=size,
            seconds=factor * (2e-4 + size / 1e9),
            spread_seconds=0.0,
            samples=5,
        )
        for operation, factor in (("all_reduce", collectives), ("send_recv", sends))
        for size in (4096, 1 << 20, 1 << 24)
    )
    return CostTable(
        machine="here",
        device="a processor",
        model=MODEL,
        concurrent_ranks=2,
        optimizer_seconds_per_parameter=1e-9,
        process_bytes=200 << 20,
        layers=layers,
        collectives=messages,
    )


def run(layout: Layout, truth: CostTable, *, extra_seconds: float = 0.0, parts: bool = True) -> MeasuredRun:
    record = price(MODEL, cluster(), layout, costs=truth)
    changes: dict[str, object] = {"step_seconds": record.step_seconds + extra_seconds}
    if not parts:
        changes["time"] = record.time.model_copy(update=dict.fromkeys(type(record.time).model_fields, 0.0))
    plan = Plan(model=MODEL, cluster=cluster(), layout=layout)
    name = f"tp{layout.tp}-pp{layout.pp}-mb{layout.microbatch}"
    return MeasuredRun(name=name, plan=plan, record=record.model_copy(update=changes))


@pytest.mark.parametrize("parts", [True, False])
def test_factors_of_a_slower_machine_are_found(parts: bool) -> None:
    truth = table(compute=1.3, collectives=2.0)
    result = calibrate([run(layout, truth, parts=parts) for layout in LAYOUTS], table())
    calibration = result.costs.calibration
    assert calibration is not None
    assert calibration.factors["compute"] == pytest.approx(1.3, rel=0.05)
    assert calibration.factors["collectives"] == pytest.approx(2.0, rel=0.15)
    assert calibration.error_before > 0.15
    assert calibration.error_after < 0.02
    assert calibration.error_held_out is not None
    assert calibration.error_held_out < 0.04


def test_the_calibrated_table_predicts_a_layout_that_never_ran() -> None:
    truth, start = table(compute=1.4, collectives=1.5, sends=1.5), table()
    unseen = Layout(pp=2, microbatch=2, global_batch=8, schedule="gpipe", precision="fp32")
    calibrated = calibrate([run(layout, truth) for layout in LAYOUTS], start).costs

    def error(costs: CostTable) -> float:
        measured = price(MODEL, cluster(), unseen, costs=truth).step_seconds
        return abs(price(MODEL, cluster(), unseen, costs=costs).step_seconds / measured - 1)

    assert error(start) > 0.2
    assert error(calibrated) < 0.03


def test_an_overhead_of_every_step_is_told_from_slower_compute() -> None:
    truth = table()
    typical = price(MODEL, cluster(), LAYOUTS[0], costs=truth).step_seconds
    runs = [run(layout, truth, extra_seconds=0.3 * typical) for layout in LAYOUTS]
    costs = calibrate(runs, table()).costs
    assert costs.step_overhead_seconds == pytest.approx(0.3 * typical, rel=0.2)
    assert costs.calibration is not None
    assert costs.calibration.factors["compute"] == pytest.approx(1.0, abs=0.05)


def test_held_out_is_what_a_fit_without_the_run_predicts() -> None:
    truth = table(compute=1.2, collectives=1.6)
    runs = [run(layout, truth) for layout in LAYOUTS]
    row = calibrate(runs, table()).rows[0]
    without = calibrate(runs[1:], table()).costs
    expected = price(MODEL, cluster(), LAYOUTS[0], costs=without).step_seconds
    assert row.held_out_seconds == pytest.approx(expected, rel=0.02)


def test_a_right_table_is_left_alone() -> None:
    start = table()
    result = calibrate([run(layout, start) for layout in LAYOUTS], start)
    assert result.costs.calibration is not None
    assert all(factor == pytest.approx(1.0, abs=1e-6) for factor in result.costs.calibration.factors.values())
    assert result.costs.step_overhead_seconds == pytest.approx(0.0, abs=1e-9)
    assert result.costs.layers[0].seconds == pytest.approx(start.layers[0].seconds)


def test_one_wild_run_is_not_believed_in_full_by_one_factor() -> None:
    result = calibrate([run(LAYOUTS[0], table(compute=50.0))], table())
    calibration = result.costs.calibration
    assert calibration is not None
    assert calibration.error_held_out is None
    assert all(0.25 <= factor <= 4.0 + 1e-9 for factor in calibration.factors.values())


def test_memory_moves_with_what_the_runs_held() -> None:
    def heavier(measured: MeasuredRun) -> MeasuredRun:
        memory = measured.record.memory
        more = memory.model_copy(update={"peak_bytes": memory.peak_bytes + (50 << 20)})
        record: Estimate = measured.record.model_copy(update={"memory": more})
        return MeasuredRun(name=measured.name, plan=measured.plan, record=record)

    start = table()
    result = calibrate([heavier(run(layout, start)) for layout in LAYOUTS], start)
    assert result.costs.process_bytes == pytest.approx((start.process_bytes or 0) + (50 << 20), abs=2)


def test_runs_that_the_table_does_not_cover_are_left_out_with_a_reason() -> None:
    good = run(LAYOUTS[0], table())
    other = ModelSpec(layers=4, hidden=32, heads=4, vocab=256, seq_len=32)
    foreign = MeasuredRun(
        name="foreign", plan=good.plan.model_copy(update={"model": other}), record=good.record
    )
    result = calibrate([good, foreign], table())
    assert list(result.skipped) == ["foreign"]
    assert [row.name for row in result.rows] == [good.name]
    with pytest.raises(ConfigError, match="another model"):
        calibrate([foreign], table())
