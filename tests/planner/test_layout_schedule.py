"""Schedules that the user wrote: read from a file, matched against the layout, priced by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.costs import price
from planner.layout import CUSTOM, Layout
from planner.layout_schedule import check_steps, schedule_of, with_schedule
from planner.plan import Plan, load_plan, save_plan
from planner.schedules import ScheduleRefused, StageTimes, build, simulate, to_csv, to_data
from planner.targets import CUBOID, MEGATRON, check_target, flushes
from profiles.errors import ConfigError, FieldError

PLAN = """\
kind: plan
model: {layers: 4, hidden: 64, heads: 4, vocab: 256, seq_len: 32}
cluster: {preset: cpu-2}
layout: {pp: 2, chunks: CHUNKS, global_batch: BATCH, schedule: SCHEDULE, precision: fp32}
"""
GREEDY = "0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n"
UPDATED = "0F0,0F1,0B0,0B1,0U1,0F2,0F3,0B2,0B3,0U3\n1F0,1B0,1F1,1B1,1U1,1F2,1B2,1F3,1B3,1U3\n"
THREE = "0F0,0B0\n1F0,1B0\n2F0,2B0\n"


def load(folder: Path, text: str, *, name: str = "mine.csv", chunks: int = 1, batch: int = 3) -> Plan:
    (folder / name).write_text(text)
    body = PLAN.replace("CHUNKS", str(chunks)).replace("BATCH", str(batch)).replace("SCHEDULE", name)
    (folder / "plan.yaml").write_text(body)
    return load_plan(folder / "plan.yaml")


def test_a_file_becomes_part_of_the_plan(tmp_path: Path) -> None:
    plan = load(tmp_path, GREEDY)
    assert plan.layout.schedule == CUSTOM
    assert plan.layout.actions == tuple(GREEDY.splitlines())
    assert to_csv(schedule_of(plan.layout)) == GREEDY
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_plan(elsewhere / "plan.yaml", plan)
    assert load_plan(elsewhere / "plan.yaml") == plan


def test_our_json_is_read_with_its_placement(tmp_path: Path) -> None:
    schedule = build("zb-v", ranks=2, microbatches=3)
    data = to_data(simulate(schedule, StageTimes.uniform(stages=4, chunks=2)))
    plan = load(tmp_path, json.dumps(data), name="mine.json", chunks=2)
    assert schedule_of(plan.layout).placement == schedule.placement == (0, 1, 1, 0)
    assert schedule_of(plan.layout).actions == schedule.actions


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (GREEDY, {"batch": 4}, r"mine.csv runs 3 microbatches, the layout has 4 .* set global_batch to 3"),
        (GREEDY, {"chunks": 2}, r"2 stages, 1 on each rank, the layout has chunks = 2; set chunks to 1"),
        (THREE, {}, r"is for 3 pipeline ranks, the layout has pp = 2"),
        (UPDATED, {"batch": 3}, r"runs 4 microbatches, which is no number of steps of 3"),
        (
            UPDATED.replace(",1U1", ""),
            {"batch": 2},
            r"rank 1, position 8, 1U3: must take the gradients of microbatches 0 to 1",
        ),
        (UPDATED.replace(",0U1", ""), {"batch": 1}, r"updates stage 0 1 times in 4 steps of 1 microbatches"),
        (
            UPDATED.replace("1U1,1F2,1B2", "1F2,1B2,1U1"),
            {"batch": 2},
            r"rank 1, position 6, 1U1: must take the gradients of microbatches 0 to 1",
        ),
        (
            UPDATED.replace(",1U3", ""),
            {"batch": 2},
            r"rank 1: no update \(U\) of stage 1 follows microbatch 3",
        ),
        ("0F0,zigzag\n", {}, r"mine.csv:1: cell 2: 'zigzag' is not an action"),
    ],
)
def test_what_does_not_match_is_refused_at_its_field(
    tmp_path: Path, text: str, fields: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, **fields)


def test_a_wrong_schedule_is_refuted_wherever_it_is_written(tmp_path: Path) -> None:
    wrong = GREEDY.replace("0B0,0B1", "0B1,0B1")
    with pytest.raises(ScheduleRefused, match="rank 0, position 4: 0B1: listed a second time"):
        load(tmp_path, wrong)
    good = load(tmp_path, GREEDY)
    rows = tuple(wrong.splitlines())
    save_plan(
        tmp_path / "wrong.yaml",
        good.model_copy(update={"layout": good.layout.model_copy(update={"actions": rows})}),
    )
    with pytest.raises(ScheduleRefused, match="listed a second time"):
        load_plan(tmp_path / "wrong.yaml")


def test_actions_and_their_name_go_together() -> None:
    with pytest.raises(FieldError, match="'custom' and actions go together"):
        Layout(global_batch=1, schedule=CUSTOM)
    with pytest.raises(FieldError, match="'custom' and actions go together"):
        Layout(global_batch=1, actions=("0F0,0B0",))


@pytest.mark.parametrize("name", ["1f1b", "gpipe", "zb-h1"])
def test_a_family_written_out_costs_what_the_family_costs(tmp_path: Path, name: str) -> None:
    plan = load(tmp_path, to_csv(build(name, ranks=2, microbatches=6)), batch=6)
    named = Layout(pp=2, global_batch=6, schedule=name, precision="fp32")
    ours, theirs = (price(plan.model, plan.cluster, layout) for layout in (plan.layout, named))
    assert ours == theirs


@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_steps_that_overlap_cost_what_the_family_costs(tmp_path: Path, name: str) -> None:
    written = build(name, ranks=2, microbatches=3, steps=4)
    plan = load(tmp_path, to_csv(written), batch=3)
    assert plan.layout.flush_every == 4
    read = schedule_of(plan.layout)
    assert (read.actions, read.forward_versions) == (written.actions, written.forward_versions)
    save_plan(tmp_path / "again.yaml", plan)
    assert load_plan(tmp_path / "again.yaml") == plan
    named = Layout(pp=2, global_batch=3, schedule=name, precision="fp32", flush_every=4)
    ours, theirs = (price(plan.model, plan.cluster, layout) for layout in (plan.layout, named))
    assert ours.step_seconds == pytest.approx(theirs.step_seconds, rel=1e-12)
    assert ours.memory == theirs.memory
    assert not flushes(plan.layout)
    untied = plan.model.model_copy(update={"tied_embeddings": False})
    check_target(plan.layout, untied, CUBOID)
    with pytest.raises(FieldError, match="would not stay one"):
        check_target(plan.layout, untied.model_copy(update={"tied_embeddings": True}), CUBOID)


def test_a_run_ends_with_a_flush(tmp_path: Path) -> None:
    layout = load(tmp_path, UPDATED, batch=2).layout
    assert layout.flush_every == 2
    check_steps(layout, 4)
    with pytest.raises(ConfigError, match=r"steps: 5 is not a multiple of 2, .* use 4 or 6"):
        check_steps(layout, 5)
    check_steps(load(tmp_path, GREEDY).layout, 5)
    flushing = with_schedule(
        Layout(pp=2, global_batch=3, flush_every=2),
        schedule_of(load(tmp_path, GREEDY).layout),
        name="mine.csv",
    )
    check_steps(flushing, 5)  # flush_every is of asynchronous schedules


def test_a_worse_order_costs_more(tmp_path: Path) -> None:
    naive = to_csv(build("naive", ranks=2, microbatches=3))
    prices = [
        price(plan.model, plan.cluster, plan.layout)
        for plan in (load(tmp_path, GREEDY), load(tmp_path, naive))
    ]
    assert prices[0].step_seconds < prices[1].step_seconds
    assert prices[0].memory.peak_bytes > prices[1].memory.peak_bytes


def test_which_frameworks_run_it(tmp_path: Path) -> None:
    plan = load(tmp_path, GREEDY)
    check_target(plan.layout, plan.model, CUBOID)
    with pytest.raises(FieldError, match="not 'custom'"):
        check_target(plan.layout, plan.model, MEGATRON)
