"""The price of a layout: what must hold for every one."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.costs import assess, price
from planner.costs.software import MATERIALISED
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset

EXAMPLES = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EXAMPLES
@given(data=st.data())
def test_breakdowns_sum_to_the_total(
    data: st.DataObject, gpt: ModelSpec, selene: ClusterSpec, layouts: st.SearchStrategy[Layout]
) -> None:
    estimate = price(gpt, selene, data.draw(layouts))
    assert sum(estimate.time.model_dump().values()) == pytest.approx(estimate.step_seconds)
    for row in estimate.memory.per_stage:
        parts = (row.weights, row.gradients, row.optimizer, row.activations, row.workspace)
        assert sum(parts) == pytest.approx(row.total)
    assert estimate.memory.peak_bytes == max(row.total for row in estimate.memory.per_stage)


@EXAMPLES
@given(data=st.data(), factor=st.floats(1.0, 8.0))
def test_more_bandwidth_is_never_slower(
    data: st.DataObject,
    factor: float,
    gpt: ModelSpec,
    selene: ClusterSpec,
    layouts: st.SearchStrategy[Layout],
) -> None:
    layout = data.draw(layouts)
    links = tuple(
        link.model_copy(update={"bytes_per_second": link.bytes_per_second * factor}) for link in selene.links
    )
    device = selene.device.model_copy(
        update={"memory_bytes_per_second": selene.device.memory_bytes_per_second * factor}
    )
    slow = price(gpt, selene, layout).step_seconds
    assert price(gpt, selene.model_copy(update={"links": links}), layout).step_seconds <= slow * (1 + 1e-9)
    assert price(gpt, selene.model_copy(update={"device": device}), layout).step_seconds <= slow * (1 + 1e-9)


@EXAMPLES
@given(data=st.data(), factor=st.floats(1.0, 4.0))
def test_more_memory_is_never_infeasible(
    data: st.DataObject,
    factor: float,
    gpt: ModelSpec,
    selene: ClusterSpec,
    layouts: st.SearchStrategy[Layout],
) -> None:
    layout = data.draw(layouts)
    device = selene.device.model_copy(update={"memory_bytes": int(selene.device.memory_bytes * factor)})
    if price(gpt, selene, layout).fits:
        assert price(gpt, selene.model_copy(update={"device": device}), layout).fits


@EXAMPLES
@given(data=st.data())
def test_memory_grows_with_the_microbatch(
    data: st.DataObject, gpt: ModelSpec, selene: ClusterSpec, layouts: st.SearchStrategy[Layout]
) -> None:
    layout = data.draw(layouts)
    twice = layout.model_copy(
        update={"microbatch": 2 * layout.microbatch, "global_batch": 2 * layout.global_batch}
    )
    assert price(gpt, selene, twice).memory.peak_bytes >= price(gpt, selene, layout).memory.peak_bytes


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_one_device_takes_the_sum_of_its_layers(gpt: ModelSpec, selene: ClusterSpec, recompute: str) -> None:
    layout = Layout.model_validate({"global_batch": 6, "microbatch": 2, "recompute": recompute})
    result = assess(gpt, selene, layout)
    pieces = result.pieces
    passes = (
        gpt.layers * (pieces.block.forward + pieces.block.backward + pieces.block.recompute(recompute))
        + pieces.embedding.forward
        + pieces.embedding.backward
        + pieces.head.forward
        + pieces.head.backward
    )
    time = result.estimate.time
    assert time.forward + time.backward + time.recompute == pytest.approx(3 * float(passes), rel=0.02)
    assert time.tp_comm == time.pp_comm == time.dp_comm == 0
    assert time.bubble == pytest.approx(0, abs=1e-9)


def test_every_group_of_numbers_says_where_it_is_from(gpt: ModelSpec, selene: ClusterSpec) -> None:
    estimate = price(gpt, selene, Layout(tp=8, pp=2, dp=2, global_batch=8))
    assert {"compute", "communication", "pipeline", "memory", "software"} <= set(estimate.provenance)
    assert estimate.provenance["pipeline"] == "simulated schedule"


def test_a_published_run_is_met() -> None:
    """Korthikanti et al. 2022, table 5: 175B on 64 A100, interleaved, 13.75 s with selective recompute."""
    layout = Layout(
        tp=8, pp=8, chunks=3, schedule="interleaved-1f1b", global_batch=64, sequence_parallel=True,
        recompute="selective", precision="fp16",
    )  # fmt: skip
    cluster = cluster_preset("selene").with_nodes(8)
    step = price(model_preset("gpt3-175b"), cluster, layout, software=MATERIALISED).step_seconds
    assert step == pytest.approx(13.75, rel=0.12)


def test_importing_the_costs_is_light() -> None:
    code = "import sys, planner.costs; print('torch' in sys.modules, 'scipy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_weight_versions_and_updates_of_asynchronous_schedules_are_priced(
    gpt: ModelSpec, selene: ClusterSpec
) -> None:
    shared = {"tp": 8, "pp": 4, "global_batch": 32}
    flush, many, two = (
        price(gpt, selene, Layout(schedule=name, **shared)) for name in ("1f1b", "pipedream", "pipedream-2bw")
    )
    assert two.step_seconds < flush.step_seconds
    assert two.time.bubble < flush.time.bubble / 2
    assert many.time.optimizer == pytest.approx(32 * flush.time.optimizer)
    assert two.time.optimizer == pytest.approx(flush.time.optimizer)
    for versions, estimate in (((4, 3, 2, 1), many), ((2, 2, 2, 2), two)):
        for copies, ours, theirs in zip(
            versions, estimate.memory.per_stage, flush.memory.per_stage, strict=True
        ):
            assert ours.weights == pytest.approx(copies * theirs.weights)
            assert ours.optimizer == theirs.optimizer


def test_hardware_flops_are_those_of_the_papers() -> None:
    # Korthikanti et al. 2022: a model's step is 72·BsLh²(1 + s/6h + V/12Lh); selective recomputation repeats
    # the attention core, 4·Bs²h a layer; Narayanan et al. 2021, §5.1: full recomputation a whole forward.
    model, cluster = model_preset("gpt3-22b"), cluster_preset("selene").with_nodes(1)
    s, h, layers, vocab = model.seq_len, model.hidden, model.layers, model.vocab
    step = 72 * s * layers * h * h * (1 + s / (6 * h) + vocab / (12 * layers * h))
    repeated = {"none": 0.0, "selective": 4 * s * s * h * layers, "full": 24 * s * layers * h * (h + s / 6)}
    for recompute, again in repeated.items():
        layout = Layout(tp=8, global_batch=4, recompute=recompute, sequence_parallel=True)  # type: ignore[arg-type]
        estimate = price(model, cluster, layout)
        assert estimate.hfu is not None
        assert estimate.mfu is not None
        assert estimate.hfu / estimate.mfu == pytest.approx(1 + again / step, rel=1e-9)


def test_a_precision_priced_as_another_is_said() -> None:
    model, cluster = model_preset("gpt2"), cluster_preset("selene").with_nodes(1)
    said = {
        precision: " ".join(price(model, cluster, Layout(global_batch=1, precision=precision)).notes)  # type: ignore[arg-type]
        for precision in ("bf16", "fp16", "fp8")
    }
    assert "fp8 training is not modelled" in said["fp8"]
    assert not said["bf16"] + said["fp16"]
    bare = cluster.device.model_copy(update={"flops_per_second": {"fp32": 1e13}})
    other = cluster.model_copy(update={"device": bare})
    assert "no rate for bf16" in " ".join(price(model, other, Layout(global_batch=1)).notes)
