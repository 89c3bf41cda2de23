"""Costs measured on processors: messages take the cores that compute, and ranks may share them."""

from __future__ import annotations

import pytest

from planner.costs import assess
from planner.costs.measured import collective_seconds, send_processor_seconds
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.costs import CollectiveCost, CostTable, LayerCost
from profiles.gradient_buckets import LEAST_BYTES
from profiles.model import ModelSpec
from profiles.presets import cluster_preset

MODEL = ModelSpec(layers=4, hidden=256, heads=4, vocab=256, seq_len=128, tied_embeddings=True)
MILLISECOND = 1e-3


def machine(ranks: int) -> ClusterSpec:
    """`ranks` rank slots on two cores."""
    return cluster_preset("cpu-2").model_copy(update={"devices_per_node": ranks, "cores_per_node": 2})


def table(ranks: int, *, busy: float | None = None, sending: float | None = None) -> CostTable:
    """Blocks of 1 ms forward, 1 + 1 backward; collectives of 2 ms, `busy` amid work; messages of 1 ms."""
    layers = tuple(
        LayerCost(
            component=component,
            phase=phase,
            microbatch=microbatch,
            seq_len=128,
            tp=tp,
            seconds=MILLISECOND * (1.0 if component == "block" else 1e-6),
            cpu_seconds=MILLISECOND * (1.0 if component == "block" else 1e-6),
            spread_seconds=0.0,
            samples=5,
        )
        for component in ("block", "embedding", "head")
        for phase in ("forward", "input_gradient", "weight_gradient")
        for microbatch in (1, 2)
        for tp in (1, 2)
    )
    collectives = tuple(
        CollectiveCost(
            operation=operation,
            ranks=size,
            groups=max(1, ranks // size),
            message_bytes=message,
            seconds=seconds,
            spread_seconds=0.0,
            samples=5,
            busy_seconds=None if operation == "send_recv" else busy,
            cpu_seconds=sending if operation == "send_recv" else None,
        )
        for size in (2, 4)
        for message in (64, 64 << 20)
        for operation, seconds in (("all_reduce", 2 * MILLISECOND), ("send_recv", MILLISECOND))
    )
    return CostTable(
        machine="here", device="a processor", model=MODEL, concurrent_ranks=ranks, cores=2, layers=layers,
        collectives=collectives, optimizer_seconds_per_parameter=0.0,
    )  # fmt: skip


def layout(**fields: object) -> Layout:
    usual = {"microbatch": 1, "global_batch": 8, "precision": "fp32", "schedule": "1f1b"}
    return Layout.model_validate(usual | fields)


def test_a_collective_costs_what_it_costs_amid_work():
    costs = table(2, busy=5 * MILLISECOND)
    assert collective_seconds(costs, "all_reduce", ranks=2, groups=1, message_bytes=64) == 5 * MILLISECOND
    assert collective_seconds(costs, "send_recv", ranks=2, groups=1, message_bytes=64) == MILLISECOND
    alone = collective_seconds(table(2), "all_reduce", ranks=2, groups=1, message_bytes=64)
    assert alone == 2 * MILLISECOND


def test_only_processors_are_taken_by_messages():
    assert send_processor_seconds(table(2), groups=1, message_bytes=64) == 0.0
    costs = table(2, sending=0.25 * MILLISECOND)
    assert send_processor_seconds(costs, groups=1, message_bytes=64) == 0.25 * MILLISECOND


def test_gradients_are_summed_bucket_by_bucket():
    held = MODEL.parameters
    assessed = assess(MODEL, machine(2), layout(dp=2), costs=table(2, busy=5 * MILLISECOND))
    buckets = 4.0 * held / max(LEAST_BYTES, 4.0 * held // 8)
    assert assessed.traffic[0].reduction == pytest.approx(buckets * 5 * MILLISECOND, rel=1e-6)


def test_nothing_hides_a_sum_where_all_cores_compute():
    """Cores to spare hide what is summed before the last stage; without, nothing is hidden."""
    asked = layout(dp=2, pp=2, chunks=2, schedule="interleaved-1f1b")
    costs = table(4, busy=5 * MILLISECOND)
    spare = machine(4).model_copy(update={"cores_per_node": 8})
    crowded = assess(MODEL, machine(4), asked, costs=costs).traffic[0]
    hidden = assess(MODEL, spare, asked, costs=costs).traffic[0]
    assert crowded.late == pytest.approx(crowded.reduction)
    assert hidden.late == pytest.approx(hidden.reduction / 2)


def test_what_was_measured_on_shared_processors_is_not_stretched_twice():
    """Two groups of two on two cores: 5 ms amid work on four ranks are 5 ms of a step of four ranks."""
    costs = table(4, busy=5 * MILLISECOND)
    tp = layout(tp=2, dp=2)
    with_sums = assess(MODEL, machine(4), tp, costs=costs).estimate.time
    syncs = 4 * 4 + 2  # of each block, and of embedding and head
    assert with_sums.tp_comm == pytest.approx(tp.microbatches * syncs * 5 * MILLISECOND)
    assert with_sums.forward == pytest.approx(tp.microbatches * 4 * 2 * MILLISECOND, rel=1e-3)  # 2 to a core


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"pp": 2}, [1, 1]),  # of a microbatch in one direction, by rank: one to or from the neighbour
        ({"pp": 2, "chunks": 2, "schedule": "interleaved-1f1b"}, [3, 3]),
        ({"pp": 2, "chunks": 2, "schedule": "zb-v"}, [2, 2]),  # the V turns on the second rank
    ],
)
def test_messages_take_their_ranks_processors(fields, ends):
    asked = layout(**fields)
    plain = assess(MODEL, machine(2), asked, costs=table(2)).pipeline.busy
    sending = assess(MODEL, machine(2), asked, costs=table(2, sending=0.25 * MILLISECOND)).pipeline.busy
    more = [(b - a) / (0.25 * MILLISECOND) for a, b in zip(plain, sending, strict=True)]
    assert more == pytest.approx([2 * asked.microbatches * count for count in ends])
