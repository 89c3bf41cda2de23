"""Schedules as text: round trips, messages for wrong files, and torch's own loader, lowering and tables."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from planner.schedules import (
    FAMILIES,
    Kind,
    Schedule,
    ScheduleRefused,
    StageTimes,
    build,
    check_parsed,
    lower,
    lowered_to_csv,
    parse_schedule,
    simulate,
    to_csv,
    to_data,
)
from profiles.errors import ConfigError

CELL = '"actions": [{"rank": 0, "action": "F", "stage": 0, "microbatch": 0}]}'
SYNCHRONOUS = [family.name for family in FAMILIES if family.flush]


def document(name: str, ranks: int = 3, microbatches: int = 4) -> dict[str, Any]:
    schedule = build(name, ranks=ranks, microbatches=microbatches)
    times = StageTimes.uniform(stages=schedule.stages, chunks=schedule.chunks)
    data: dict[str, Any] = json.loads(json.dumps(to_data(simulate(schedule, times))))
    return data


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_json_reads_back_equal(family: object) -> None:
    name = getattr(family, "name", "")
    schedule = build(name, ranks=3, microbatches=4)
    parsed = parse_schedule(json.dumps(document(name)))
    check_parsed(parsed)
    assert (parsed.schedule.actions, parsed.schedule.placement) == (schedule.actions, schedule.placement)
    assert parsed.schedule.flush == schedule.flush
    if schedule.forward_versions:
        assert parsed.schedule.forward_versions == schedule.forward_versions


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_csv_reads_back_equal_with_and_without_messages(name: str) -> None:
    schedule = build(name, ranks=3, microbatches=4)
    plain = parse_schedule(to_csv(schedule))
    check_parsed(plain)
    lowered = parse_schedule(lowered_to_csv(lower(schedule)))
    check_parsed(lowered)
    for parsed in (plain, lowered):
        assert (parsed.schedule.actions, parsed.schedule.placement) == (schedule.actions, schedule.placement)
    assert lowered.lowered is not None and lowered.lowered.actions == lower(schedule).actions


def test_thirds_of_a_chunk_sum_to_whole_numbers() -> None:
    schedule = build("interleaved-1f1b", ranks=4, microbatches=8, chunks=3)
    data = to_data(simulate(schedule, StageTimes.uniform(stages=12, chunks=3)))
    assert data["cycle"] == 27.0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d["actions"].pop(3), "count"),
        (lambda d: d["actions"].append(dict(d["actions"][0])), "count"),
        (lambda d: d["actions"][5].update(rank=(d["actions"][5]["rank"] + 1) % 3), "ownership"),
        (lambda d: d["actions"][0].update(microbatch=9), "range"),
        (lambda d: d["actions"][0].update(stage=7), "range"),
        (lambda d: d["actions"][-1].update(start=0.0), "times"),
        (lambda d: d["actions"][2].update(end=99.0), "times"),
        (lambda d: d["actions"][2].update(end=d["actions"][2]["start"] - 1), "times"),
        (lambda d: d["actions"][0].update(microbatch=-3), "range"),
        (lambda d: d.update(microbatches=100_000), "count"),
    ],
)
def test_a_changed_file_is_refused(change: Any, rule: str) -> None:
    data = document("1f1b")
    change(data)
    with pytest.raises(ScheduleRefused) as refused:
        check_parsed(parse_schedule(json.dumps(data)))
    assert refused.value.rule == rule
    assert refused.value.rank is not None and refused.value.cell is not None


def test_a_weight_version_that_does_not_exist_yet_is_refused() -> None:
    data = document("pipedream")
    next(cell for cell in data["actions"] if cell["action"] == "F")["version"] = 1
    with pytest.raises(ScheduleRefused, match="uses version 1, after 0 updates"):
        check_parsed(parse_schedule(json.dumps(data)))


def test_messages_of_a_file_are_proved_too() -> None:
    text = lowered_to_csv(lower(build("1f1b", ranks=2, microbatches=2)))
    check_parsed(parse_schedule(text))
    for broken, says in [
        (text.replace("0SEND_F1,", ""), "0SEND_F1 is missing"),
        (text.replace("1RECV_F1,", ""), "comes before 1RECV_F1"),
        (text.replace("0F1,0SEND_F1", "0SEND_F1,0F1"), "sent before its data is made"),
        (text.replace("0SEND_F0,", "0SEND_F0,0SEND_F0,"), "listed a second time"),
        (text.replace("0SEND_F0,", "0SEND_F0,0SEND_B0,"), "there is no stage -1 at the other end"),
    ]:
        assert broken != text
        with pytest.raises(ScheduleRefused, match=says) as refused:
            check_parsed(parse_schedule(broken))
        assert None not in (refused.value.rank, refused.value.position, refused.value.cell)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("0F0,0B0,hello", "<schedule>:1: cell 3: 'hello' is not an action"),
        ("0F0,0B", "names no microbatch"),
        ("{", "<schedule>:1:2: not valid JSON: Expecting property name"),
        ("{}", "no list 'actions'"),
        ('{"actions": [{"rank": 0}]}', r"actions\[0\]"),
        ('{"actions": [{"rank": 0, "action": "X", "stage": 0, "microbatch": 0}]}', "use F, B, I, W or U"),
        ('{"actions": []}', "'actions' is empty"),
        ('{"schedules": [{}, {}]}', "holds 2 schedules, expected one"),
        ('{"ranks": "two", ' + CELL, "ranks: must be a whole number"),
        ('{"ranks": 1, ' + CELL.replace('"rank": 0', '"rank": 4'), "actions[0].rank: 4, of ranks 0 to 0"),
        ("{" + CELL.replace('"rank": 0', '"rank": -1'), "actions[0].rank: -1, of ranks 0 to 0"),
        # Numbers that only fill the memory, and what would stop a parser rather than be refused by it.
        ("{" + CELL.replace('"stage": 0', '"stage": 1000000000'), "stages: must be a whole number from 1 to"),
        ('{"microbatches": 1e9, ' + CELL, "microbatches: must be a whole number from 1 to"),
        ("{" + CELL.replace('"stage": 0', '"stage": ' + "9" * 5000), "a number too long"),
        ('{"actions": ' + "[" * 100_000, "nested too deeply"),
        ("0F0,99999999999F0", "cell 2: '99999999999F0' is not an action"),
        ("0F0,0B0," + "x" * 200_000, "<schedule>:1: not CSV: field larger than field limit"),
        ("0F0,0B0," + "x" * 100_000, "cell 3: '" + "x" * 40 + "' is not"),
        (
            '{"placement": [0, 1], "actions": [{"rank": 0, "action": "F", "stage": 0, "microbatch": 0}]}',
            "placement",
        ),
    ],
)
def test_what_is_no_schedule_says_where(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says if "\\" in says else re.escape(says)):
        parse_schedule(text)


def test_a_reduction_alone_is_no_list_of_messages() -> None:
    """torch's own order of GPipe has REDUCE_GRAD at its end, and neither SEND nor RECV."""
    parsed = parse_schedule("\ufeff0F0,0F1,0B0,0B1,0REDUCE_GRAD\r\n1F0,1F1,1B0,1B1,1REDUCE_GRAD\r\n")
    check_parsed(parsed)
    assert (
        parsed.lowered is None and parsed.schedule.actions == build("gpipe", ranks=2, microbatches=2).actions
    )


def test_torch_pairs_run_in_the_order_given() -> None:
    parsed = parse_schedule("0F0,(0F1;0B0)OVERLAP_F_B,,0B1\n")
    assert [str(action) for action in parsed.schedule.actions[0]] == ["0F0", "0F1", "0B0", "0B1"]
    check_parsed(parsed)


def torch_runtime(schedule: Schedule) -> Any:
    """A torch schedule without processes: what its loader, validator and lowering need, and no more."""
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    runtime = object.__new__(schedules._PipelineScheduleRuntime)
    runtime.pp_group_size = schedule.ranks
    runtime._num_stages, runtime._n_microbatches = schedule.stages, schedule.microbatches
    runtime._stages = [SimpleNamespace()]
    runtime.pipeline_order, runtime._defer_pp_recv = {}, False
    return runtime


@pytest.mark.parametrize("name", SYNCHRONOUS)
@pytest.mark.parametrize(("p", "m"), [(1, 2), (2, 2), (3, 7), (4, 8)])
def test_torch_loads_validates_lowers_and_simulates_our_csv(
    name: str, p: int, m: int, tmp_path: Path
) -> None:
    schedule = build(name, ranks=p, microbatches=m)
    path = tmp_path / "schedule.csv"
    path.write_text(to_csv(schedule), encoding="utf-8")
    runtime = torch_runtime(schedule)
    runtime._load_csv(str(path))
    assert [runtime.stage_index_to_group_rank[s] for s in range(schedule.stages)] == list(schedule.placement)
    # torch's simulator refuses its own sharding actions (its defect), so they are taken out first.
    sharding = ("UNSHARD", "RESHARD", "REDUCE_GRAD")
    order = {
        rank: [action for action in row if action.computation_type.value not in sharding]
        for rank, row in runtime.pipeline_order_with_comms.items()
    }
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    schedules._simulate_comms_compute(order, lambda s: schedule.placement[s], schedule.stages)
    # And the other way round: we prove what torch lowered.
    text = "".join(",".join(map(str, runtime.pipeline_order_with_comms[rank])) + "\n" for rank in range(p))
    check_parsed(parse_schedule(text))


@pytest.mark.parametrize(("p", "m"), [(1, 4), (2, 4), (3, 6), (4, 8), (4, 16), (5, 15), (8, 24)])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("zb-v", "ScheduleZBVZeroBubble"),
        ("dualpipe-v", "ScheduleDualPipeV"),
        ("interleaved-1f1b", "ScheduleInterleaved1F1B"),
    ],
)
def test_our_order_is_that_of_torch_where_it_has_the_family(name: str, theirs: str, p: int, m: int) -> None:
    schedule = build(name, ranks=p, microbatches=m)
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    peer = object.__new__(getattr(schedules, theirs))
    peer.pp_group_size, peer._n_microbatches = p, m
    peer.num_stages, peer.n_local_stages = schedule.stages, 2
    peer.number_of_rounds = max(1, m // p)
    peer.microbatches_per_round = m // peer.number_of_rounds
    for rank in range(p):
        row = [action for action in peer._calculate_single_rank_operations(rank) if action is not None]
        flat = [str(part) for action in row for part in (action.sub_actions or (action,))]
        assert [str(action) for action in schedule.actions[rank]] == flat


def test_kinds_are_torch_letters() -> None:
    assert [kind.name for kind in Kind if kind.is_compute] == ["F", "B", "I", "W", "U"]
