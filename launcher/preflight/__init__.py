"""Before training: what the job itself says, and what every node says of itself, against the plan."""

from launcher.preflight.facts import NodeFacts, gather
from launcher.preflight.here import check_here
from launcher.preflight.job import check_data, check_job
from launcher.preflight.judge import Trouble, judge

__all__ = ["NodeFacts", "Trouble", "check_data", "check_here", "check_job", "gather", "judge"]
