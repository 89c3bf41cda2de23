"""Texts in the shape that nccl-tests print; numbers of our own."""

from __future__ import annotations

import pytest

from planner.nccl_tests import measured_on, operation_of, parse_nccl_tests
from profiles.errors import ConfigError

NEW = """\
# nThread 1 nGpus 4 minBytes 8 maxBytes 67108864 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1
#
# Using devices
#  Rank  0 Group  0 Pid   100 on   node-a device  0 [0x07] NVIDIA Thing
#  Rank  1 Group  0 Pid   100 on   node-a device  1 [0x0f] NVIDIA Thing
#  Rank  2 Group  0 Pid   100 on   node-a device  2 [0x47] NVIDIA Thing
#  Rank  3 Group  0 Pid   100 on   node-a device  3 [0x4e] NVIDIA Thing
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
node-a:100:107 [0] NCCL INFO 4 coll channels, 4 p2p channels
        1024           256     float     sum      -1    20.50    0.05    0.07      0    20.10    0.05    0.08      0
    67108864      16777216     float     sum      -1    500.0  134.22  201.33      0    498.0  134.76  202.13      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 100.7
"""  # noqa: E501 (as printed)

OLD = """\
#   Rank  0 Pid   1320 on  node-a device  0 [0x00] NVIDIA Thing
#   Rank  1 Pid   1321 on  node-b device  0 [0x00] NVIDIA Thing
#                                             out-of-place                       in-place
#       size         count    type     time   algbw   busbw  error     time   algbw   busbw  error
     4194304        524288   float    210.0   19.97    9.99    N/A    205.0   20.46   10.23    N/A
"""


def test_rows_become_costs() -> None:
    costs = parse_nccl_tests(NEW, name="out.txt")
    assert [(cost.operation, cost.ranks, cost.groups, cost.samples) for cost in costs] == [
        ("all_reduce", 4, 1, 20)
    ] * 2
    assert [(cost.message_bytes, cost.seconds) for cost in costs] == [
        (1024, pytest.approx(20.5e-6)),
        (67108864, pytest.approx(500e-6)),
    ]


def test_an_all_gather_counts_one_ranks_part() -> None:
    (cost,) = parse_nccl_tests(OLD, name="x", operation="all_gather")
    assert (cost.message_bytes, cost.seconds, cost.ranks) == (4194304 // 2, pytest.approx(210e-6), 2)


def test_send_recv_is_pairs() -> None:
    costs = parse_nccl_tests(NEW, name="x", operation="send_recv")
    assert {(cost.ranks, cost.groups) for cost in costs} == {(2, 2)}


def test_groups_that_run_at_once() -> None:
    """NCCL_TESTS_SPLIT: ranks 0 and 2 are a group, 1 and 3 another."""
    split = NEW.replace("Rank  1 Group  0", "Rank  1 Group  1").replace(
        "Rank  3 Group  0", "Rank  3 Group  1"
    )
    costs = parse_nccl_tests(split, name="x", operation="all_reduce")
    assert {(cost.ranks, cost.groups, cost.stride) for cost in costs} == {(2, 2, 2)}


@pytest.mark.parametrize("tag", ["[1,0]<stdout>:", "[1,0]<stdout>: ", "0: ", " 3: "])
def test_tags_of_launchers_are_cut_off(tag: str) -> None:
    tagged = "".join(f"{tag}{line}\n" for line in NEW.splitlines())
    assert parse_nccl_tests(tagged, name="x") == parse_nccl_tests(NEW, name="x")
    assert measured_on(tagged) == ("node-a", "NVIDIA Thing")


def test_values_that_were_not_checked() -> None:
    """Without validation the last column of either half is N/A."""
    times = [cost.seconds for cost in parse_nccl_tests(NEW, name="x")]
    unchecked = NEW.replace("      0    ", "    N/A    ").replace("      0\n", "    N/A\n")
    assert unchecked.count("N/A") == 4
    assert [cost.seconds for cost in parse_nccl_tests(unchecked, name="x")] == times


def test_the_programs_name_tells() -> None:
    assert parse_nccl_tests("# Collective test starting: reduce_scatter_perf\n" + OLD, name="x")[
        0
    ].operation == ("reduce_scatter")
    assert operation_of("logs/all_gather_perf-8.txt") == "all_gather"
    assert operation_of("nccl.txt") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table"),
        (NEW.replace("#  Rank", "#  rank"), "0 ranks"),
        (
            NEW.replace(
                "Group  0 Pid   100 on   node-a device  3", "Group  1 Pid   100 on   node-a device  3"
            ),
            "unlike",
        ),
        ("# Collective test starting: alltoall_perf\n" + NEW, "no plan uses"),
        (NEW.split("#       size", maxsplit=1)[0], "no table"),
        (OLD, "which collective"),
        (
            NEW.replace("Rank  1", "Rank  0").replace("Rank  2", "Rank  0").replace("Rank  3", "Rank  0"),
            "1 ranks",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_nccl_tests(text, name="out.txt")


def test_every_truncation_is_read_or_refused() -> None:
    for end in range(0, len(NEW), 7):
        try:
            costs = parse_nccl_tests(NEW[:end], name="out.txt", operation="all_reduce")
        except ConfigError:
            continue
        assert all(cost.seconds > 0 for cost in costs)
