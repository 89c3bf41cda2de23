"""From samples to entries of the table."""

from __future__ import annotations

import pytest

from profiles.bench_request import BenchRequest
from profiles.model import ModelSpec
from runtime.bench.measured import Measured
from runtime.bench.points import CollectivePoint
from runtime.bench.stopwatch import Lap
from runtime.bench.table import table

REQUEST = BenchRequest(
    model=ModelSpec(layers=2, hidden=32, heads=2, vocab=64, seq_len=16, tied_embeddings=False),
    ranks=2,
    seconds=1.0,
    microbatches=(1,),
    tensor_parallel=(1, 2),
    seq_len=16,
)
POINT = CollectivePoint(operation="all_reduce", ranks=2, groups=1, stride=1, message_bytes=64)


@pytest.mark.parametrize(
    ("both", "busy"),
    [
        (5e-3, 3e-3),  # what it adds to the product's 2 ms
        (2.1e-3, 0.5e-3),  # hardly told from the product: at least its processor time
        (1.9e-3, 0.5e-3),
    ],
)
def test_a_collective_amid_work_costs_what_it_adds(both, busy):
    laps = {
        "seconds": [Lap(1e-3, 0.5e-3)] * 3,
        "product": [Lap(2e-3, None)] * 3,
        "product_and_collective": [Lap(both, None)] * 3,
    }
    found = table(REQUEST, {POINT: Measured(laps=laps)}, process_bytes=None).collectives[0]
    assert found.busy_seconds == pytest.approx(busy)
    assert found.seconds == 1e-3


def test_an_accelerator_has_no_such_cost():
    laps = {"seconds": [Lap(1e-3, None)] * 3}
    found = table(REQUEST, {POINT: Measured(laps=laps)}, process_bytes=None)
    assert found.collectives[0].busy_seconds is None
