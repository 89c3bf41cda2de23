"""The seconds of every stage: its blocks and ends by category, and the times that its schedule runs with."""

from __future__ import annotations

from dataclasses import dataclass

from planner.costs.rates import Phases, Pieces, stage_phases
from planner.layout import Layout
from planner.partition import spread
from planner.schedules.families import find_family
from planner.schedules.times import StageTimes
from profiles.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of one microbatch per stage, by category."""

    layers: tuple[int, ...]
    forward: tuple[float, ...]
    backward: tuple[float, ...]
    weight_gradient: tuple[float, ...]
    recompute: tuple[float, ...]
    tp_forward: tuple[float, ...]
    tp_backward: tuple[float, ...]


def stage_layers(model: ModelSpec, layout: Layout) -> tuple[int, ...]:
    """Return the layers of every stage: those of the layout, or as even as possible with lighter ends."""
    if layout.layers_per_stage is not None:
        return layout.layers_per_stage
    return spread((model.layers,), (0,) * layout.stages)


def price_stages(model: ModelSpec, layout: Layout, pieces: Pieces) -> Stages:
    """Add up the pieces of every stage."""
    layers = stage_layers(model, layout)
    rows: dict[str, list[float]] = {name: [] for name in Stages.__dataclass_fields__ if name != "layers"}
    known: dict[tuple[int, bool, bool, str], Phases] = {}
    for stage, count in enumerate(layers):
        key = (count, stage == 0, stage == len(layers) - 1, layout.recompute_of(stage))
        if key not in known:
            known[key] = stage_phases(pieces, count, first=key[1], last=key[2], recompute=key[3])
        for name, row in rows.items():
            row.append(float(getattr(known[key], name)))
    return Stages(layers=layers, **{name: tuple(row) for name, row in rows.items()})


def stage_times(layout: Layout, pieces: Pieces, stages: Stages) -> StageTimes:
    """Return the seconds of every stage and of the transfers between them."""
    count = len(stages.layers)
    hop = 0.0 if layout.overlap.pp or layout.pp == 1 else pieces.hop_seconds + pieces.hop_latency
    ends = [pieces.hop_processor_seconds * ends for ends in _message_ends(layout)]
    backward = [
        stages.backward[s] + stages.recompute[s] + stages.tp_backward[s] + (s > 0) * hop + ends[s]
        for s in range(count)
    ]
    weight = [min(stages.weight_gradient[s], backward[s]) for s in range(count)]
    return StageTimes(
        forward=tuple(
            stages.forward[s] + stages.tp_forward[s] + (s < count - 1) * hop + ends[s] for s in range(count)
        ),
        backward=tuple(backward),
        input_gradient=tuple(b - w for b, w in zip(backward, weight, strict=True)),
        weight_gradient=tuple(weight),
        latency=0.0 if hop else pieces.hop_latency,
        wire=(0.0 if hop else pieces.hop_seconds,) * (count - 1),
    )


def _message_ends(layout: Layout) -> list[int]:
    """Return how many messages a microbatch sends and receives at every stage, in one direction."""
    stages = layout.stages
    crossing = [layout.pp > 1] * (stages - 1)
    if layout.chunks > 1 and layout.actions is None and find_family(layout.schedule).placement == "v":
        crossing = [(stage + 1) % layout.pp > 0 for stage in range(stages - 1)]  # it turns on one rank
    return [
        (stage > 0 and crossing[stage - 1]) + (stage < stages - 1 and crossing[stage])
        for stage in range(stages)
    ]
