"""`cuboid explain`: the formula and the source behind every number of a plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from launcher.console import print_json, stdout_console
from launcher.plan_costs import costs_of
from planner.plan import load_plan


def explain(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.yaml, by hand or from `cuboid plan`.")],
    field: Annotated[
        str | None, typer.Argument(metavar="[FIELD]", help="One number, such as time.bubble; default: all.")
    ] = None,
    costs: Annotated[
        Path | None, typer.Option(help="costs.yaml from `cuboid bench`; the plan's own if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show how each number of an estimate is formed: in symbols, with the numbers put in, with its sources.

    Example: cuboid explain plan.yaml
             cuboid explain plan.yaml time.tp_comm
    """
    from planner.costs import assess  # noqa: PLC0415 (numpy; --help must not pay for it)
    from planner.explain import explain as lines  # noqa: PLC0415

    resolved = load_plan(plan)
    measured = costs_of(resolved, plan, costs)
    assessment = assess(resolved.model, resolved.cluster, resolved.layout, costs=measured)
    explanations = lines(resolved, assessment, field)
    if json:
        print_json({"fields": [asdict(entry) for entry in explanations]})
        return
    out = stdout_console()
    for entry in explanations:
        out.print(f"[bold]{entry.field}[/bold] = {entry.text}")
        out.print(f"  {entry.formula}", markup=False)
        out.print(f"  = {entry.numbers}", markup=False)
        for source in entry.sources:
            out.print(f"    {source}", markup=False, style="dim")
