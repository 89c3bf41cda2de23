"""Shapes and splits that come out uneven, against one process in fp64: two clipped steps of AdamW."""

from __future__ import annotations

import pytest

from planner.layout import Layout
from tests.runtime.test_pipeline import compare, model, run_steps

GATED = {"position": "rope", "norm": "rmsnorm", "gated_mlp": True, "ffn_hidden": 12}
ODD = {
    "one key head": ({**GATED, "kv_heads": 1}, {"pp": 2}),
    "3 heads, uneven vocabulary": ({"hidden": 9, "heads": 3, "ffn_hidden": 12}, {"tp": 3}),
    "ranks without a row of the vocabulary": ({"heads": 4, "vocab": 5}, {"tp": 4, "global_batch": 2}),
    "one token": ({"seq_len": 1, "vocab": 2}, {"tp": 2, "pp": 2}),
    "a dp rank without a valid token": ({"seq_len": 1}, {"dp": 2, "global_batch": 2}),
    "the same, in a pipeline": (
        {"seq_len": 1, "tied_embeddings": False},
        {"dp": 2, "pp": 2, "global_batch": 2},
    ),
    "tied in one stage": ({}, {"tp": 2}),
    "nothing but embedding and head": ({}, {"pp": 3, "layers_per_stage": (0, 4, 0)}),
    "layers last": ({"tied_embeddings": False}, {"pp": 2, "tp": 2, "layers_per_stage": (0, 4)}),
    "all alike, recomputed": ({**GATED, "heads": 4, "kv_heads": 2}, {"pp": 2, "tp": 2, "recompute": "full"}),
    "one sequence": ({}, {"pp": 4, "global_batch": 1}),
    "mixed recompute": ({}, {"pp": 2, "tp": 2, "recompute": ("full", "selective")}),
}


CASES = {
    name: (model(**shape), Layout(**({"global_batch": 4, "precision": "fp64"} | degrees)))
    for name, (shape, degrees) in ODD.items()
}


@pytest.mark.parametrize("ranks", sorted({layout.world_size for _, layout in CASES.values()}))
def test_odd_shapes_give_the_steps_of_one_process(run_ranks, ranks):
    cases = {name: case for name, case in CASES.items() if case[1].world_size == ranks}
    results = run_ranks(ranks, lambda: [run_steps(*case, 2) for case in cases.values()])
    worst = {
        name: compare([rank[place] for rank in results], *case, steps=2)
        for place, (name, case) in enumerate(cases.items())
    }
    assert max(worst.values()) <= 1e-12, worst
