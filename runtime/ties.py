"""Tied embeddings: one weight that the first and the last stage both use.

On two ranks each holds a copy. Both start equal, both receive the sum of all copies' gradients, and so both
take the same optimizer step: they stay equal bit for bit. On one rank (the two ends of a V) both stages share
one parameter, and only data parallelism is left to sum over.

    first stage, dp 0 ─┐                        one all-reduce over all of them:
    first stage, dp 1 ─┼─ the `tie` group       the sum over stages and over dp at once
    last stage,  dp 0 ─┤
    last stage,  dp 1 ─┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from runtime.linear import zero_gradient
from runtime.mesh import Axis, Mesh
from runtime.models import Stage


@dataclass(frozen=True, kw_only=True)
class Tie:
    """This rank's copy of the tied weight. `counted` on one of the copies, for norms."""

    parameter: nn.Parameter
    axis: Axis
    counted: bool

    def reduce(self) -> None:
        """Sum the gradient over both stages and dp."""
        self.axis.all_reduce(zero_gradient(self.parameter))


def tie_stages(stages: Mapping[int, Stage], mesh: Mesh) -> Tie | None:
    """Return this rank's end of the tie, if it has one; where it has both, they now share one parameter."""
    ends = {stage: weight for stage, module in stages.items() if (weight := module.tied_weight()) is not None}
    if not ends or mesh.tie is None:
        return None
    first, *others = (ends[stage] for stage in sorted(ends))
    for other in others:
        for module in stages[max(ends)].modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter is other:
                    setattr(module, name, first)
    return Tie(parameter=first, axis=mesh.tie, counted=0 in ends)
