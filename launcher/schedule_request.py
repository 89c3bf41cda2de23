"""What one `cuboid schedule` asks for: builds, prices and describes each of its schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from launcher.schedule_options import Durations, looks_like_file, read_schedule
from planner.schedules import (
    AUTO,
    FAMILIES,
    Family,
    Schedule,
    ScheduleError,
    ScheduleRefused,
    StageTimes,
    Timeline,
    build,
    check_parsed,
    find_family,
    peak_activations,
    simulate,
    steady_cycle,
    steady_weight_versions,
    to_data,
)
from planner.schedules.automatic import Problem, auto, auto_timeline
from profiles.errors import ConfigError, InfeasibleError

_FRONTIER_EFFORT = 100_000


@dataclass(frozen=True, kw_only=True)
class Steady:
    """What a step costs when steps overlap, and the versions of its weights that each rank then keeps."""

    cycle: float
    weight_versions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One schedule on the plane of memory and bubble; `limit` is what it had to keep to."""

    name: str
    limit: float
    peak: float
    cycle: float
    bubble_fraction: float

    @classmethod
    def of(cls, name: str, timeline: Timeline, limit: float) -> Point:
        """Return where `timeline` lies."""
        return cls(
            name=name,
            limit=limit,
            peak=max(timeline.peak_activations),
            cycle=timeline.cycle,
            bubble_fraction=timeline.bubble_fraction,
        )


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The least bubble for each memory limit, ascending, and the named families."""

    searched: tuple[Point, ...]
    families: tuple[Point, ...]

    def data(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "frontier": [asdict(point) for point in self.searched],
            "families": [asdict(point) for point in self.families],
        }


def _doubling(most: int) -> list[int]:
    """1, 2, 4, … and `most` itself."""
    return sorted({2**power for power in range(most.bit_length())} | {most})


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

    def require_possible(self, names: Sequence[str]) -> None:
        """Refuse numbers that no schedule can have, or that none of `names` would heed.

        Raises:
            ConfigError: naming the option.
        """
        limit = self.memory_limit
        if limit is not None and not 0 < limit < math.inf:
            raise ConfigError(f"--memory-limit: {limit:g} is not a number above 0; leave it out for no limit")
        families = [find_family(name) for name in names if not looks_like_file(name)]
        if self.steps > 1 and all(family.flush for family in families):
            raise ConfigError(
                f"--steps {self.steps}: steps of {', '.join(names)} do not overlap, each ends before the next"
                " begins; leave --steps out, or name pipedream or pipedream-2bw"
            )

    def timeline(self, name: str) -> Timeline:
        """Build (or read and prove) one schedule and simulate it.

        Raises:
            ConfigError: for numbers that are missing or impossible.
            InfeasibleError: for a file that is refuted, or more memory than the limit.
        """
        if not self.blocking and not looks_like_file(name) and find_family(name) is AUTO:
            return auto_timeline(self._problem(self.memory_limit))
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
            data["steady_cycle"] = float(f"{steady.cycle:.12g}")
            data["steady_weight_versions"] = list(steady.weight_versions)
        return data

    def steady(self, timeline: Timeline) -> Steady | None:
        """Return an asynchronous family in the long run; None for others and files."""
        schedule = timeline.schedule
        name, ranks, microbatches, times = schedule.name, self.ranks, self.microbatches, self.times(schedule)
        by_name = any(family.name == name for family in FAMILIES)
        if schedule.flush or not by_name or ranks is None or microbatches is None:
            return None
        return Steady(
            cycle=steady_cycle(name, ranks=ranks, microbatches=microbatches, times=times),
            weight_versions=steady_weight_versions(name, ranks=ranks, microbatches=microbatches),
        )

    def _schedule(self, name: str) -> Schedule:
        if looks_like_file(name):
            parsed = read_schedule(name)
            try:
                check_parsed(parsed)
            except ScheduleRefused as refused:
                raise refused.of(name) from None
            self._require_numbers(name, parsed.schedule)
            return parsed.schedule
        ranks, microbatches = self.numbers(name)
        family = find_family(name)
        if family is AUTO:
            return self._auto(self.memory_limit)
        return build(
            name,
            ranks=ranks,
            microbatches=microbatches,
            chunks=self.chunks,
            steps=1 if family.flush else self.steps,
        )

    def _require_numbers(self, name: str, schedule: Schedule) -> None:
        """Refuse a file for other numbers than the options say."""
        for option, wanted, found in (
            ("--stages", self.ranks, schedule.ranks),
            ("--chunks", self.chunks, schedule.chunks),
            ("--microbatches", self.microbatches, schedule.microbatches if schedule.flush else None),
        ):
            if wanted is not None and found is not None and wanted != found:
                raise ConfigError(f"{name} is for {option} {found}, not {wanted}; leave {option} out")

    def _auto(self, memory_limit: float | None, *, effort: int | None = None) -> Schedule:
        """Return the best schedule found, with less effort where that is given."""
        problem = self._problem(memory_limit)
        found = auto(problem) if effort is None else auto(problem, effort=effort)
        if not self.blocking:
            return found
        # The search lets sends be buffered. When they block, a family may suit better than what it found.
        options = [found]
        for family in FAMILIES:
            try:
                schedule = self._schedule(family.name) if family.flush else found
            except ScheduleError:
                continue  # not with these numbers
            if problem.keeps_limit(schedule):
                options.append(replace(schedule, name=found.name))
        return min(options, key=lambda each: simulate(each, self.times(each), blocking=True).cycle)

    def _problem(self, memory_limit: float | None) -> Problem:
        ranks, microbatches = self.numbers("auto")
        return Problem(
            ranks=ranks,
            microbatches=microbatches,
            times_of=self.durations.of,
            chunks=self.chunks or self.durations.chunks(ranks),
            memory_limit=memory_limit,
        )

    def frontier(self, names: Sequence[str]) -> Frontier:
        """Return the least bubble for memory limits from one microbatch up, and where the families lie.

        The families are those of `names`, all of them where `names` is auto alone.

        Raises:
            ConfigError: for a file, or an asynchronous family, whose steps overlap.
        """
        ranks, microbatches = self.numbers("auto")
        named = [_on_the_frontier(name) for name in names if name != AUTO.name]
        families = [point for point in map(self._point, named or FAMILIES) if point is not None]
        limits = {1.0, ranks / 4, ranks / 3, ranks / 2, 0.75 * ranks, ranks, 1.5 * ranks, 2.0 * ranks - 1}
        limits = {math.ceil(limit * 2) / 2 for limit in limits} | {family.peak for family in families}
        points: list[Point] = []
        best: Timeline | None = None
        most = float(microbatches)
        if self.memory_limit is not None:
            most = min(most, self.memory_limit)
            limits.add(most)
        for limit in sorted(limit for limit in limits if 1 <= limit <= most) or [most]:
            schedule = self._auto(limit, effort=_FRONTIER_EFFORT)
            timeline = simulate(schedule, self.times(schedule), blocking=self.blocking)
            if best is None or timeline.cycle < best.cycle * (1 - 1e-9):
                best = timeline
            points.append(Point.of("auto", best, limit))
        return Frontier(searched=tuple(points), families=tuple(families))

    def _point(self, family: Family) -> Point | None:
        if not family.flush:
            return None
        try:
            timeline = self.timeline(family.name)
        except (ScheduleError, ConfigError, InfeasibleError):
            return None  # not with these numbers
        return Point.of(family.name, timeline, max(timeline.peak_activations))

    def heatmap(self, name: str) -> dict[tuple[int, int], float | None]:
        """Return (ranks, microbatches) → bubble fraction up to the given numbers; None if impossible.

        Raises:
            ConfigError: for a file, and for times given per rank: the map has other numbers of ranks too.
        """
        if looks_like_file(name):
            raise ConfigError(f"--heatmap builds schedules of many sizes, {name} has one; name a family")
        if any(len(values) > 1 for values in self.durations.kinds.values()):
            raise ConfigError(
                "--heatmap has many numbers of ranks; give --times one value for F, I and W each"
            )
        ranks, microbatches = self.numbers(name)
        cells: dict[tuple[int, int], float | None] = {}
        for p, m in itertools.product(_doubling(ranks), _doubling(microbatches)):
            try:
                timeline = replace(self, ranks=p, microbatches=m).timeline(name)
                cells[p, m] = timeline.bubble_fraction
            except (ScheduleError, InfeasibleError):
                cells[p, m] = None
        return cells

    def numbers(self, name: str) -> tuple[int, int]:
        """Return ranks and microbatches, which every named family needs."""
        if self.ranks is None or self.microbatches is None:
            missing = "--stages" if self.ranks is None else "--microbatches"
            raise ConfigError(f"{name}: {missing} is needed, for example --stages 4 --microbatches 8")
        return self.ranks, self.microbatches


def _on_the_frontier(name: str) -> Family:
    """Return the family called `name`, which has a place on the plane of memory and bubble."""
    if looks_like_file(name):
        raise ConfigError(f"--frontier compares families, {name} is a file; name families, or auto for all")
    family = find_family(name)
    if not family.flush:
        raise ConfigError(f"--frontier is for one step, and steps of {name} overlap; leave {name} out")
    return family


def _check_limit(schedule: Schedule, limit: float) -> None:
    peaks = peak_activations(schedule)
    worst = max(range(len(peaks)), key=peaks.__getitem__)
    if peaks[worst] > limit + 1e-9:
        instead = "" if limit < 1 else ", or use auto, which keeps to it"
        raise InfeasibleError(
            f"{schedule.name}: rank {worst} holds {peaks[worst]:.4g} microbatches, the limit is {limit:.4g};"
            f" raise --memory-limit{instead}"
        )
