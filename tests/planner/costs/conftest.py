"""Models, clusters and layouts that many prices are taken of."""

import pytest
from hypothesis import strategies as st

from planner.layout import Layout
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec
from profiles.presets import cluster_preset, model_preset


@pytest.fixture(scope="session")
def gpt() -> ModelSpec:
    return model_preset("gpt3-22b")


@pytest.fixture(scope="session")
def selene() -> ClusterSpec:
    return cluster_preset("selene").with_nodes(8)


@pytest.fixture(scope="session")
def layouts() -> st.SearchStrategy[Layout]:
    """Layouts of the 22B model (48 layers, 64 heads) on up to 64 devices."""

    def build(tp: int, pp: int, dp: int, microbatch: int, count: int, **options: object) -> Layout:
        options["sequence_parallel"] = bool(options["sequence_parallel"]) and tp > 1
        return Layout.model_validate(
            {
                "tp": tp,
                "pp": pp,
                "dp": dp,
                "microbatch": microbatch,
                "global_batch": dp * microbatch * count,
                **options,
            },
            strict=False,
        )

    return st.builds(
        build,
        tp=st.sampled_from([1, 2, 4, 8]),
        pp=st.sampled_from([1, 2, 3, 4]),
        dp=st.sampled_from([1, 2]),
        microbatch=st.integers(1, 4),
        count=st.integers(1, 9),
        sequence_parallel=st.booleans(),
        recompute=st.sampled_from(["none", "selective", "full"]),
        zero=st.sampled_from([0, 1, 2, 3]),
        schedule=st.sampled_from(["1f1b", "gpipe"]),
        overlap=st.sampled_from(
            [{"dp": True, "tp": False, "pp": True}, {"dp": False, "tp": True, "pp": False}]
        ),
    )
