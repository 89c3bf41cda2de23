"""What an exporter returns: files for another framework, and what of the plan they do not carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from planner.costs import stage_layers
from planner.plan import Plan
from profiles.errors import InfeasibleError

Status = Literal["lossless", "lossy"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Files by name, the first one the main one; `losses` are parts of the layout that they do not carry.

    `notes` are what the user still has to supply (data, tokenizer, learning rate, …).
    """

    target: str
    framework: str
    files: dict[str, str]
    losses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """Whether the whole layout is in the files."""
        return "lossy" if self.losses else "lossless"


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """A target of `cuboid export`: its name, the framework version it writes for, and its function."""

    name: str
    framework: str
    export: Callable[[Plan], Export]


def unsupported(framework: str, reason: str, hint: str = "") -> InfeasibleError:
    """Return the refusal of a layout that the framework cannot run at all."""
    return InfeasibleError(f"{framework} cannot run this plan: {reason}" + (f"; {hint}" if hint else ""))


def header(framework: str, plan: Plan, losses: tuple[str, ...], *, comment: str = "#") -> str:
    """Return comment lines that say what the file is and what it leaves out."""
    layout = plan.layout
    lines = [
        f"{plan.model.name}: tp {layout.tp} x pp {layout.pp} x dp {layout.dp}, {layout.schedule},"
        f" {layout.microbatches} microbatches of {layout.microbatch}, global batch {layout.global_batch}",
        f"written by cuboid for {framework}",
        *(f"not carried over: {loss}" for loss in losses),
    ]
    # A name may hold line breaks, which must not end the comment.
    return "".join(f"{comment} {' '.join(line.split())}\n" for line in lines)


def layers_of_stages(plan: Plan) -> tuple[int, ...]:
    """Return the layers of every stage, written out."""
    return stage_layers(plan.model, plan.layout)


def recompute_modes(plan: Plan) -> set[str]:
    """Return the recomputation modes of all stages."""
    return {plan.layout.recompute_of(stage) for stage in range(plan.layout.stages)}


def strongest_recompute(plan: Plan) -> tuple[str, tuple[str, ...]]:
    """Return the one mode for a framework that knows no per-stage modes, and the loss where it matters."""
    modes = recompute_modes(plan)
    strongest = next(mode for mode in ("full", "selective", "none") if mode in modes)
    if len(modes) > 1:
        return strongest, (f"recomputation per stage (every stage gets '{strongest}')",)
    return strongest, ()
