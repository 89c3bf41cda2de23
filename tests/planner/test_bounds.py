"""Depths in closed form, against the schedules themselves."""

import numpy as np
import pytest

from planner.bounds import depth
from planner.schedules import FAMILIES, build, peak_activations
from planner.schedules.family import Family
from profiles.errors import ConfigError


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.flush], ids=lambda family: family.name)
def test_depth_is_never_more_than_the_schedule_holds(family: Family) -> None:
    for ranks in (2, 3, 4, 6, 8):
        for microbatches in (1, 2, ranks, 2 * ranks + 1, 4 * ranks):
            for chunks in (family.chunks, 3) if family.chunked else (family.chunks,):
                try:
                    schedule = build(family.name, ranks=ranks, microbatches=microbatches, chunks=chunks)
                except ConfigError:
                    continue
                held = peak_activations(schedule)
                for rank in (0, ranks - 1):
                    bound = depth(
                        family.name,
                        rank=np.array([rank]),
                        pp=np.array([ranks]),
                        chunks=np.array([chunks]),
                        microbatches=np.array([microbatches]),
                    )
                    assert bound[0] <= held[rank] + 1e-9, (ranks, microbatches, chunks, rank)


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved-1f1b", "looped-bfs"])
def test_depth_is_exact_for_the_usual_families(name: str) -> None:
    for ranks, microbatches in ((2, 8), (4, 16), (8, 24)):
        chunks = 2 if name in {"interleaved-1f1b", "looped-bfs"} else 1
        held = peak_activations(build(name, ranks=ranks, microbatches=microbatches, chunks=chunks))
        found = depth(
            name,
            rank=np.arange(ranks),
            pp=np.full(ranks, ranks),
            chunks=np.full(ranks, chunks),
            microbatches=np.full(ranks, microbatches),
        )
        assert found == pytest.approx(held)
