"""Prediction intervals: around the prediction, from runs of the same kind."""

import pytest

from planner.costs import price
from planner.costs.interval import MEASURED, MEASURED_CPU, RESIDUALS, UNMEASURED_CPU, interval
from planner.costs.software import MATERIALISED, MODERN
from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec
from profiles.presets import cluster_preset


def test_every_kind_of_run_has_residuals_around_one() -> None:
    for entry in RESIDUALS.values():
        assert entry.low < 1 < entry.high
        assert entry.runs > 30


@pytest.mark.parametrize("software", [MODERN, MATERIALISED])
@pytest.mark.parametrize("nodes", [1, 4])
def test_the_nearest_kind_is_taken(software: object, nodes: int) -> None:
    found = interval(cluster_preset("selene").with_nodes(nodes), software, measured=False)  # type: ignore[arg-type]
    assert ("one node" in found.source) == (nodes == 1)
    assert ("flash" in found.source) == (software is MODERN)


def test_measurements_and_processors_have_their_own() -> None:
    cluster = cluster_preset("cpu-2")
    assert interval(cluster, MODERN, measured=True) is MEASURED_CPU
    assert interval(cluster, MODERN, measured=False) is UNMEASURED_CPU
    assert interval(cluster_preset("selene"), MODERN, measured=True) is MEASURED


def test_an_estimate_carries_its_interval(gpt: ModelSpec, selene: ClusterSpec) -> None:
    estimate = price(gpt, selene, Layout(tp=8, dp=2, global_batch=4))
    assert estimate.step_seconds_low is not None
    assert estimate.step_seconds_high is not None
    assert estimate.step_seconds_low < estimate.step_seconds < estimate.step_seconds_high
    assert "runs)" in estimate.provenance["interval"]
