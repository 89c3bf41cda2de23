"""Leaving one source out: the constants come from the others, and nothing of the source itself remains."""

from dataclasses import replace

import numpy as np

from planner.costs.software import MATERIALISED
from planner.layout import Layout
from planner.validate import predict
from planner.validate_case import Case
from planner.validate_cluster import cluster_of
from planner.validate_refit import MOST_ROWS, leave_one_out, thinned
from profiles.model import ModelSpec
from profiles.presets import model_preset


def case(source: str, microbatch: int, *, gpu: str = "A100 80GB", slower: float = 1.0) -> Case:
    """A run on one node whose device computes `slower` times less than its preset says."""
    model: ModelSpec = model_preset("gpt3-1.7b")
    layout = Layout(tp=1, pp=1, dp=8, microbatch=microbatch, global_batch=64, precision="fp16")
    cluster = cluster_of({"gpu": gpu, "gpus_per_node": 8}, 8, [])
    device = cluster.device
    true = device.model_copy(update={"gemm_efficiency": device.gemm_efficiency / slower})
    plain = Case(
        id=f"{source}-{microbatch}",
        source=source,
        gpu=device.name,
        model=model,
        cluster=cluster,
        layout=layout,
        software=MATERIALISED,
        measured_step_seconds=1.0,
    )
    measured = replace(plain, cluster=cluster.model_copy(update={"device": true}))
    return replace(plain, measured_step_seconds=predict(measured).step_seconds)


def mean_error(errors: list[float]) -> float:
    return float(np.abs(errors).mean())


def test_a_source_is_predicted_with_what_the_others_say_of_its_device() -> None:
    cases = [case(source, mb, slower=1.25) for source in ("one", "two") for mb in (1, 2, 4, 8)]
    shipped = [predict(c).step_seconds / (c.measured_step_seconds or 1.0) - 1 for c in cases[:4]]
    left_out = leave_one_out(cases)
    assert mean_error(shipped) > 0.08
    assert mean_error(left_out["one"]) < 0.02
    assert mean_error(left_out["two"]) < 0.02


def test_a_source_does_not_help_itself() -> None:
    honest = [case("honest", mb) for mb in (1, 2, 4, 8)]
    odd = [case("odd", mb, slower=1.25) for mb in (1, 2, 4, 8)]
    left_out = leave_one_out([*honest, *odd])
    assert np.mean(left_out["odd"]) < -0.08  # as far off as the shipped constants, which fit the other one
    assert np.mean(left_out["honest"]) > 0.08


def test_a_device_that_no_other_source_has_is_predicted_from_its_relatives() -> None:
    known = [case("known", mb) for mb in (1, 4)]
    alone = [case("alone", mb, gpu="H200") for mb in (1, 4)]
    errors = leave_one_out([*known, *alone])["alone"]
    assert mean_error(errors) > 0.02  # its own constants would have given no error at all
    assert mean_error(errors) < 0.5


def test_large_tables_are_thinned_evenly_and_small_ones_are_not() -> None:
    many = [case("many", 1)] * (5 * MOST_ROWS)
    few = [case("few", 1)] * 3
    kept = thinned([*many, *few, replace(few[0], measured_step_seconds=None)])
    assert sum(c.source == "many" for c in kept) == MOST_ROWS
    assert sum(c.source == "few" for c in kept) == 3


def test_one_source_alone_leaves_nothing_to_learn_from() -> None:
    assert leave_one_out([case("only", 1)]) == {}


def test_perfect_constants_stay() -> None:
    cases = [case(source, mb) for source in ("one", "two") for mb in (1, 4)]
    assert mean_error(leave_one_out(cases)["one"]) < 1e-3
