"""What one `cuboid schedule` asks for: builds, prices and describes each of its schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.schedule_options import Durations, looks_like_file, read_schedule
from planner.schedules import (
    Schedule,
    StageTimes,
    Timeline,
    build,
    check_parsed,
    find_family,
    peak_activations,
    simulate,
    steady_cycle,
    to_data,
)
from profiles.errors import ConfigError, InfeasibleError


@dataclass(frozen=True, kw_only=True)
class ScheduleRequest:
    """Numbers and durations that all schedules of one command share."""

    ranks: int | None
    microbatches: int | None
    chunks: int | None
    steps: int
    durations: Durations
    blocking: bool
    memory_limit: float | None

    def timeline(self, name: str) -> Timeline:
        """Build (or read and prove) one schedule and simulate it.

        Raises:
            ConfigError: for numbers that are missing or impossible.
            InfeasibleError: for a file that is refuted, or more memory than the limit.
        """
        schedule = self._schedule(name)
        if self.memory_limit is not None:
            _check_limit(schedule, self.memory_limit)
        return simulate(schedule, self.times(schedule), blocking=self.blocking)

    def times(self, schedule: Schedule) -> StageTimes:
        """Return the durations of the stages of `schedule`."""
        return self.durations.of(schedule.placement)

    def data(self, timeline: Timeline) -> dict[str, Any]:
        """Return what `--json` prints for one timeline."""
        data = to_data(timeline)
        steady = self.steady(timeline)
        if steady is not None:
            data["steady_cycle"] = float(f"{steady:.12g}")
        return data

    def steady(self, timeline: Timeline) -> float | None:
        """Return what a step of an asynchronous family costs in the long run; None for others and files."""
        schedule = timeline.schedule
        if schedule.flush or self.ranks is None or self.microbatches is None:
            return None
        return steady_cycle(
            schedule.name, ranks=self.ranks, microbatches=self.microbatches, times=self.times(schedule)
        )

    def _schedule(self, name: str) -> Schedule:
        if looks_like_file(name):
            parsed = read_schedule(name)
            check_parsed(parsed)
            return parsed.schedule
        ranks, microbatches = self.numbers(name)
        family = find_family(name)
        return build(
            name,
            ranks=ranks,
            microbatches=microbatches,
            chunks=self.chunks,
            steps=1 if family.flush else self.steps,
        )

    def numbers(self, name: str) -> tuple[int, int]:
        """Return ranks and microbatches, which every named family needs."""
        if self.ranks is None or self.microbatches is None:
            missing = "--stages" if self.ranks is None else "--microbatches"
            raise ConfigError(f"{name}: {missing} is needed, for example --stages 4 --microbatches 8")
        return self.ranks, self.microbatches


def _check_limit(schedule: Schedule, limit: float) -> None:
    peaks = peak_activations(schedule)
    worst = max(range(len(peaks)), key=peaks.__getitem__)
    if peaks[worst] > limit + 1e-9:
        raise InfeasibleError(
            f"{schedule.name}: rank {worst} holds {peaks[worst]:.4g} microbatches, the limit is {limit:.4g};"
            " raise --memory-limit, or use auto, which keeps to it"
        )
