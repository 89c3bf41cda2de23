"""What a rule looks at, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.lint.script import Script
from planner.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Context:
    """The script, and the plan it is to run where that is known."""

    script: Script
    plan: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A line with the mistake (0: the script as a whole); an empty message stands for the rule's title."""

    line: int
    message: str = ""
