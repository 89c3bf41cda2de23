"""`cuboid lint`: known mistakes in a batch script."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from launcher.console import print_json, stdout_console
from profiles.errors import ConfigError


def lint(
    script: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A batch script, written by anyone.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="The plan it is to run, for rules L21 and L22.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Rule to leave out; repeatable.")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List all rules instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find known mistakes in an sbatch script: each with its fix and where it is known from.

    Looks at the script and at this shell's SBATCH_* and NCCL_* variables; runs nothing. Exit code 1 when
    something is found.

    Example: cuboid lint train.sbatch
             cuboid lint train.sbatch --plan plan.yaml --ignore L17
    """
    from launcher.lint import RULES  # noqa: PLC0415 (only here)
    from launcher.lint import lint as find  # noqa: PLC0415
    from planner.plan import load_plan  # noqa: PLC0415

    out = stdout_console()
    if rules:
        for rule in RULES:
            out.print(
                f"{rule.id}  {rule.title}\n     fix: {rule.fix}\n     source: {rule.source}", markup=False
            )
        return
    if script is None:
        raise ConfigError("give a batch script, or --rules")
    unknown = sorted(set(ignore or ()) - {rule.id for rule in RULES})
    if unknown:
        raise ConfigError(f"--ignore {unknown[0]}: no such rule; see --rules")
    try:
        text = script.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{script}: {error.strerror}") from None
    findings = find(text, environment=os.environ, plan=load_plan(plan) if plan else None)
    findings = tuple(finding for finding in findings if finding.rule not in (ignore or ()))
    if json:
        print_json({"file": str(script), "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            out.print(f"{script}:{finding.line}: {finding.rule} {finding.message}", markup=False)
            out.print(f"    fix: {finding.fix}\n    source: {finding.source}", markup=False)
        out.print(f"{len(findings)} finding(s), {len(RULES)} rules", markup=False)
    if findings:
        raise typer.Exit(1)
