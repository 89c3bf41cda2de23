"""Known mistakes in batch scripts, found in anyone's script."""

from launcher.lint.rules import RULES, Finding, Rule, lint

__all__ = ["RULES", "Finding", "Rule", "lint"]
