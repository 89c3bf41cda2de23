"""Asynchronous schedules in the search: only when pinned, then as good as pricing every layout."""

from __future__ import annotations

import numpy as np
import pytest

from planner.assemble import assemble
from planner.columns import layer_times
from planner.costs import MODERN, price
from planner.frontier import Candidate
from planner.pins import Pins
from planner.rank_bounds import Pricing
from planner.ranking import TIE
from planner.search import search
from planner.space import build_space
from planner.targets import CUBOID
from profiles.cluster import ClusterSpec
from profiles.errors import FieldError
from profiles.model import ModelSpec

SIZE = {"devices": 4, "global_batch": 6}


@pytest.fixture
def untied(small_model: ModelSpec) -> ModelSpec:
    return small_model.model_copy(update={"tied_embeddings": False})


@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_the_best_is_that_of_pricing_every_layout(
    untied: ModelSpec, two_nodes: ClusterSpec, name: str
) -> None:
    pins = Pins(values={"schedule": name, "microbatch": 1})
    space = build_space(untied, two_nodes, target=CUBOID, pins=pins, **SIZE)
    pricing = Pricing(model=untied, cluster=two_nodes, software=MODERN)
    choices = space.choices(np.arange(len(space.skeletons)))
    variants, times = space.variants(choices), layer_times(space, choices, MODERN, None)
    best = np.inf
    for row in range(len(variants)):
        candidate = Candidate(
            expected_seconds=0.0, bound_seconds=0.0, choices=choices, times=times, variants=variants, row=row
        )
        layout = assemble(space, pricing, candidate)
        if layout is not None and (name == "pipedream" or layout.microbatches >= layout.pp - 1):
            estimate = price(untied, two_nodes, layout)
            best = min(best, estimate.step_seconds if estimate.fits else np.inf)
    found = search(untied, two_nodes, pins=dict(pins.values), target="cuboid", effort=10**9, **SIZE)
    assert best <= found.best.estimate.step_seconds <= best * (1 + TIE)
    assert found.best.layout.schedule == name


def test_they_are_proposed_only_when_pinned(untied: ModelSpec, two_nodes: ClusterSpec) -> None:
    space = build_space(untied, two_nodes, target=CUBOID, pins=Pins(), **SIZE)
    assert not {"pipedream", "pipedream-2bw"} & set(space.schedules)
    tied = untied.model_copy(update={"tied_embeddings": True})
    with pytest.raises(FieldError, match=r"set model\.tied_embeddings to false"):
        build_space(tied, two_nodes, target=CUBOID, pins=Pins(values={"schedule": "pipedream"}), **SIZE)
