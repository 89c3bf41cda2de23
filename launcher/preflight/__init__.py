"""Before training: every node looks at itself, one process compares the answers with the plan."""

from launcher.preflight.facts import NodeFacts, gather
from launcher.preflight.judge import Trouble, judge

__all__ = ["NodeFacts", "Trouble", "gather", "judge"]
