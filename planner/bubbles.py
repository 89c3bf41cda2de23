"""The bubble that a family's authors give in closed form, to be printed beside the simulated one.

F, B, I and W are the seconds of a rank's forward, backward, input and weight gradient of one microbatch, all
ranks alike and messages free; p ranks, v chunks, m microbatches.
"""

from __future__ import annotations

from planner.costs.pipeline import Pipeline
from planner.costs.stages import Stages
from planner.layout import Layout
from profiles.units import format_seconds


def closed_bubble(layout: Layout, stages: Stages, line: Pipeline) -> str:
    """Return the closed form of the layout's family with its numbers, or that there is none."""
    p, v, m = layout.pp, layout.chunks, layout.microbatches
    if p == 1:
        return "one rank has no bubble"
    forward = sum(stages.forward) + sum(stages.tp_forward)
    weight = sum(stages.weight_gradient) / p
    back = (sum(stages.backward) + sum(stages.recompute) + sum(stages.tp_backward)) / p
    f, i = forward / p, back - weight
    names = f"F {format_seconds(f)}, B {format_seconds(back)}, W {format_seconds(weight)}"
    half = 3 * p - (4 if p % 2 else 5)
    forms: dict[str, tuple[str, float]] = {
        "naive": (f"m (p − 1) (F + B) = {m} · {p - 1} · (F + B)", m * (p - 1) * (f + back)),
        "gpipe": (f"(p − 1) (F + B) = {p - 1} · (F + B)", (p - 1) * (f + back)),
        "interleaved-1f1b": (f"(p − 1) (F + B) / v = {p - 1} · (F + B) / {v}", (p - 1) * (f + back) / v),
        "zb-h1": (f"(p − 1) (F + I − W) = {p - 1} · (F + B − 2 W)", (p - 1) * (f + i - weight)),
        "zb-h2": (f"(p − 1) (F + I − 2 W) = {p - 1} · (F + B − 3 W)", (p - 1) * (f + i - 2 * weight)),
        "zb-v": ("0 where F = I = W and m ≥ 2 p", 0.0),
        "v-half": (f"{half} / 2 · (F + B) / 3 where F = I = W and m ≥ 2 p", half / 6 * (f + back)),
        "v-min": (f"{4 * p - 5} / 2 · (F + B) / 3 where F = I = W and m ≥ 2 p", (4 * p - 5) / 6 * (f + back)),
    }
    forms["1f1b"] = forms["gpipe"]
    forms["looped-bfs"] = forms["interleaved-1f1b"]
    if layout.schedule not in forms:
        return f"none for {layout.schedule}"
    text, seconds = forms[layout.schedule]
    work = max(line.busy)
    return (
        f"{text} = {format_seconds(max(0.0, seconds))}, {max(0.0, seconds) / work:.1%} of the work; {names}"
    )
