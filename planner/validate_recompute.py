"""What a published record says of recomputation, and when it is not what was measured.

A record may carry the setting of a configuration that its authors wrote for their simulator instead of that
of the measured job. Such a setting is kept where at least one layout of the table could not have run without
recomputation; where all of them fit without it, none is assumed and every case says so. Measured times are
not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.costs import memory
from planner.costs.compute import Slice
from planner.validate_case import Case, SkippedError, whole_number
from profiles.model import ModelSpec

CONFIGURED = re.compile(r"recompute[^.;]*configurations?\b")


def recompute_share(
    training: Mapping[str, Any], layout: dict[str, Any], model: ModelSpec, assumed: list[str]
) -> float:
    """Set the layout's recompute mode; return the share of layers it applies to.

    Raises:
        SkippedError: when the record's words are not understood.
    """
    text = str(training.get("recompute") or "none").lower()
    layers = whole_number(training.get("recompute_layers"))
    layout["recompute"] = "none"
    if training.get("recompute") is None and not layers:
        assumed.append("no recomputation")
    if text.startswith("none") or re.search(r"\b0 layers", text) or layers == 0:
        return 1.0
    if "every second layer" in text or "selective layer" in text:
        layout["recompute"] = "full"
        return 0.5
    if text.startswith("selective"):
        layout["recompute"] = "selective"
        return 1.0
    if "full" in text or layers:
        layout["recompute"] = "full"
        return min(1.0, layers / model.layers) if layers else 1.0
    raise SkippedError(f"recompute '{text}' is not modelled")


def without_configured(cases: Sequence[Case], remarks: str) -> list[Case]:
    """Return `cases` without a recomputation that is only configured and that no layout needs."""
    if not CONFIGURED.search(remarks.lower()) or any(needs_recompute(case) for case in cases):
        return list(cases)
    note = "no recomputation: configured for a simulator, and every layout of the table fits without"
    return [
        replace(
            case,
            layout=case.layout.model_copy(update={"recompute": "none"}),
            assumed=(*case.assumed, note),
        )
        for case in cases
    ]


def needs_recompute(case: Case) -> bool:
    """Return whether the first stage, all activations kept, is larger than the device."""
    model, layout = case.model, case.layout
    part = Slice(
        microbatch=layout.microbatch,
        tp=layout.tp,
        sequence_parallel=layout.sequence_parallel,
        precision=layout.precision,
    )
    blocks = model.layers / layout.pp
    depth = min(layout.pp, layout.microbatches)
    kept = depth * blocks * float(memory.block_activation_bytes(model, case.software, part))
    held = model.parameters / (layout.tp * layout.pp)
    state = memory.weight_bytes(held, layout.precision, layout.dp, layout.zero)
    state = state + memory.gradient_bytes(held, case.software, layout.precision, layout.dp, layout.zero)
    state = state + memory.optimizer_bytes(held, layout.precision, layout.dp, layout.zero)
    return float(kept + state) > case.cluster.device.memory_bytes
