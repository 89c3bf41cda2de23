"""Every layout of a model on a few ranks.

Listed apart from the search, so that nothing is missed that the search leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import product

from planner.layout import Layout, check_layout
from planner.schedules.families import FAMILIES
from planner.skeletons import divisors
from profiles.errors import ConfigError
from profiles.model import ModelSpec
from runtime.pipeline import lowered_schedule


def valid(model: ModelSpec, ranks: int, batch: int) -> Iterator[Layout]:
    """Yield every layout that uses all ranks, without recomputation and sequence parallelism."""
    for layout in layouts(model, ranks, batch):
        with suppress(ConfigError):  # the family has no schedule for these numbers, or heads do not divide
            check_layout(layout, model)
            lowered_schedule(layout)
            yield layout


def layouts(model: ModelSpec, ranks: int, batch: int) -> Iterator[Layout]:
    """Yield every combination of degrees, microbatch and synchronous schedule; some will not build."""
    families = [family for family in FAMILIES if family.flush]
    alone = [family for family in families if family.name == "1f1b"]  # alone, every schedule is the same
    for tp, pp in product(divisors(ranks), repeat=2):
        if ranks % (tp * pp):
            continue
        dp = ranks // (tp * pp)
        for microbatch in divisors(batch // dp):
            for family in families if pp > 1 else alone:
                for chunks in range(
                    family.chunks, model.layers // pp + 1 if family.chunked else family.chunks + 1
                ):
                    yield Layout(
                        tp=tp,
                        pp=pp,
                        dp=dp,
                        chunks=chunks,
                        microbatch=microbatch,
                        global_batch=batch,
                        schedule=family.name,
                        precision="fp32",
                    )
