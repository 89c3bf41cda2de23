"""What a refused schedule says: the rule it breaks, and at which rank, position and cell."""

from __future__ import annotations

from planner.schedules.action import Action, Kind, Schedule
from profiles.errors import InfeasibleError


class ScheduleRefused(InfeasibleError):  # noqa: N818 (a verdict, in the words of the commands)
    """A schedule breaks a rule; says which, at which rank, position (from 0) and cell."""

    def __init__(
        self,
        rule: str,
        message: str,
        *,
        cell: Action | None = None,
        rank: int | None = None,
        position: int | None = None,
        name: str = "",
    ) -> None:
        self._message = message
        self.rule, self.cell, self.rank, self.position = rule, cell, rank, position
        where = "" if rank is None else f"rank {rank}"
        where += "" if position is None else f", position {position}"
        super().__init__(": ".join(filter(None, (name, where, f"{message} [{rule}]"))))

    def of(self, name: str) -> ScheduleRefused:
        """Return the same refusal, saying that it is of the file `name`."""
        return ScheduleRefused(
            self.rule, self._message, cell=self.cell, rank=self.rank, position=self.position, name=name
        )


def stuck(schedule: Schedule, rank: int, position: int, action: Action) -> ScheduleRefused:
    """Return the refusal for a rank that waits for ever at `position`."""
    kind, stage, microbatch = action
    needed = stage - 1 if kind == Kind.F else stage + 1
    what = "output" if kind == Kind.F else "gradient"
    owner = schedule.placement[needed] if 0 <= needed < schedule.stages else rank
    return ScheduleRefused(
        "deadlock",
        f"{action} waits for ever for stage {needed}'s {what} of microbatch {microbatch} from rank {owner}",
        cell=action,
        rank=rank,
        position=position,
    )
