"""What a schedule is wanted for: durations, transfers, memory, and how many stages a rank may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.schedules.action import Schedule, loop_placement, v_placement
from planner.schedules.automatic.score import Score, score_of
from planner.schedules.memory import peak_stage_activations
from planner.schedules.simulate import simulate
from planner.schedules.times import StageTimes

TimesOf = Callable[[Sequence[int]], StageTimes]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a schedule is wanted for.

    `times_of` gives the stage times for a placement (stage → rank). `chunks` of None leaves the stages per
    rank open (1 or 2). `memory_limit` is in microbatches through all of a rank's layers; None is no limit.
    """

    ranks: int
    microbatches: int
    times_of: TimesOf
    chunks: int | None = None
    memory_limit: float | None = None

    def placements(self) -> list[tuple[int, ...]]:
        """Return the placements to try; stages per rank alike in each."""
        options = (1, 2) if self.chunks is None else (self.chunks,)
        found = []
        for chunks in options:
            found.append(loop_placement(self.ranks, chunks))
            if chunks > 1 and self.ranks > 1:
                found.append(v_placement(self.ranks, chunks))
        return found

    def limits(self, chunks: int) -> tuple[int, ...]:
        """Return the most stage activations per rank."""
        most = chunks * self.microbatches
        if self.memory_limit is not None:
            most = min(most, int(self.memory_limit * chunks + 1e-9))
        return (most,) * self.ranks

    def bound(self) -> float:
        """Return a cycle that no schedule can beat: the least work of the busiest rank."""
        return min(self._work(placement) for placement in self.placements())

    def _work(self, placement: tuple[int, ...]) -> float:
        times = self.times_of(placement)
        work = [0.0] * self.ranks
        for stage, rank in enumerate(placement):
            split = times.input_gradient[stage] + times.weight_gradient[stage]
            work[rank] += self.microbatches * (times.forward[stage] + min(split, times.backward[stage]))
        return max(work)

    def keeps_limit(self, schedule: Schedule) -> bool:
        """Whether no rank holds more than the memory limit."""
        limits = self.limits(schedule.chunks)
        return all(
            peak <= limit for peak, limit in zip(peak_stage_activations(schedule), limits, strict=True)
        )

    def score(self, schedule: Schedule) -> Score | None:
        """Return what is minimised, or None for a schedule that does not fit."""
        if not self.keeps_limit(schedule):
            return None
        return score_of(simulate(schedule, self.times_of(schedule.placement)))
