"""Small models and clusters on which every layout can be priced."""

import pytest

from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec
from profiles.presets import cluster_preset


@pytest.fixture
def small_model() -> ModelSpec:
    """Six layers whose head outweighs several of them."""
    return ModelSpec(layers=6, hidden=1024, heads=4, kv_heads=2, gated_mlp=True, vocab=32000, seq_len=512)


@pytest.fixture
def two_nodes() -> ClusterSpec:
    """Two nodes of two A100, so that every axis may cross the slow link."""
    return cluster_preset("selene").model_copy(
        update={
            "devices_per_node": 2,
            "nodes": 2,
            "links": tuple(
                link.model_copy(update={"span": 2 if link.span else None})
                for link in cluster_preset("selene").links
            ),
        }
    )
