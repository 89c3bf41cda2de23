"""From stage times to step time: the very schedule on paper.

Closed forms serve the search's pruning and are printed beside; a plan's price comes from `simulate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from planner.schedules.action import Schedule
from planner.schedules.families import build, find_family
from planner.schedules.shared import simulate_shared
from planner.schedules.simulate import simulate
from planner.schedules.text import parse_schedule
from planner.schedules.times import StageTimes
from planner.schedules.versions import updates_of, weight_versions

NEAR = 0.15  # of the shortest cell: hops up to this do not hold up a seamless schedule
MAX_ACTIONS = 3_000  # longer schedules are simulated in part: they repeat


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What one step costs before the optimizer.

    `ends` is when each rank finishes its last action, `in_flight` the most microbatches it holds at once (in
    units of all its layers), `shared` tells whether ranks share processors.
    """

    seconds: float
    ends: tuple[float, ...]
    busy: tuple[float, ...]
    in_flight: tuple[float, ...]
    placement: tuple[int, ...]
    shared: bool = False
    weight_versions: tuple[int, ...] = ()  # per rank, of asynchronous ones
    updates: int = 1  # optimizer steps in a step

    @cached_property
    def stages_of_ranks(self) -> tuple[tuple[int, ...], ...]:
        """The stages of every rank, ascending."""
        own: list[list[int]] = [[] for _ in self.ends]
        for stage, rank in enumerate(self.placement):
            own[rank].append(stage)
        return tuple(tuple(stages) for stages in own)


@lru_cache(maxsize=256)
def run(
    schedule: str,
    times: StageTimes,
    *,
    ranks: int,
    chunks: int,
    microbatches: int,
    cores_per_rank: float | None = None,
    actions: tuple[str, ...] | None = None,
    overlapped: int = 1,
) -> Pipeline:
    """Simulate `schedule`, in part if it is long: in the steady state a step grows by a fixed amount a round.

    With `cores_per_rank`, pipeline ranks share processors: there are that many for each rank's worth of
    processes, `times` are processor seconds, and `busy` is the time they take while others compute too.
    `actions` are those of a schedule that the user wrote. An asynchronous family is priced with `overlapped`
    steps between two flushes, of which each takes an equal share; its updates are left to the caller.

    Raises:
        ScheduleError: when there is no such family, or it has no schedule for these numbers.
    """
    if actions is not None:
        written = parse_schedule("\n".join(actions)).schedule
        whole = _priced(written, times, cores_per_rank)
        return whole if written.flush else _shared_out(whole, written, overlapped)
    family = find_family(schedule)
    if not family.flush:
        return _overlapping(schedule, times, ranks, microbatches, overlapped, cores_per_rank)
    total = 2 * microbatches * ranks * chunks
    rounds = microbatches // ranks
    if family.seamless and rounds >= family.settled and total > MAX_ACTIONS and ranks > 1:
        cell = min(*times.forward, *times.input_gradient)
        if cores_per_rank is None and times.latency + max(times.wire) <= NEAR * cell:
            return _seamless(schedule, times, ranks, chunks, microbatches)
    settled = max(family.settled, MAX_ACTIONS // (4 * ranks * ranks * chunks))
    if rounds < settled + 2 or (total <= MAX_ACTIONS and ranks > 1):
        return _simulate(schedule, times, ranks, chunks, microbatches, cores_per_rank)
    fewer = settled * ranks + microbatches % ranks
    more = fewer + ranks
    if family.chunked:
        # Groups of about p microbatches share what is left over: a part begins with a group of the same size.
        fewer, more = (-(-k * microbatches // rounds) for k in (settled, settled + 1))
    short = _simulate(schedule, times, ranks, chunks, fewer, cores_per_rank)
    longer = _simulate(schedule, times, ranks, chunks, more, cores_per_rank)
    repeats = (microbatches - fewer) / (more - fewer)

    def extend(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
        return tuple(x + repeats * (y - x) for x, y in zip(a, b, strict=True))

    busy = extend(short.busy, longer.busy)
    seconds = short.seconds + repeats * (longer.seconds - short.seconds)
    # Where one rank is much slower than the others, it may not hold them up yet in so short a part.
    late = max(0.0, short.seconds + repeats * (max(longer.busy) - max(short.busy)) - seconds)
    return Pipeline(
        seconds=seconds + late,
        ends=tuple(end + late for end in extend(short.ends, longer.ends)),
        busy=busy,
        in_flight=extend(short.in_flight, longer.in_flight),
        placement=longer.placement,
        shared=longer.shared,
    )


def _seamless(schedule: str, times: StageTimes, ranks: int, chunks: int, microbatches: int) -> Pipeline:
    """Price a schedule in whose steady state the slowest rank never waits."""
    fewer = find_family(schedule).settled * ranks
    short = _simulate(schedule, times, ranks, chunks, fewer, None)
    work = tuple(busy / fewer for busy in short.busy)
    rest = (microbatches - fewer) * max(work)
    return replace(
        short,
        seconds=short.seconds + rest,
        ends=tuple(end + rest for end in short.ends),
        busy=tuple(microbatches * each for each in work),
    )


def _simulate(  # noqa: PLR0917 (private, called three times)
    schedule: str, times: StageTimes, ranks: int, chunks: int, microbatches: int, cores: float | None
) -> Pipeline:
    return _priced(_built(schedule, ranks, microbatches, chunks), times, cores)


@lru_cache(maxsize=16)
def _built(schedule: str, ranks: int, microbatches: int, chunks: int) -> Schedule:
    """Build a schedule once for layouts that differ in their times alone."""
    return build(schedule, ranks=ranks, microbatches=microbatches, chunks=chunks)


def _overlapping(  # noqa: PLR0917 (private, called once)
    schedule: str, times: StageTimes, ranks: int, microbatches: int, steps: int, cores: float | None
) -> Pipeline:
    """Price one of `steps` steps that overlap: 1F1B over all of their microbatches, then a flush."""
    built = build(schedule, ranks=ranks, microbatches=microbatches, steps=steps)
    whole = run("1f1b", times, ranks=ranks, chunks=1, microbatches=microbatches * steps, cores_per_rank=cores)
    return _shared_out(whole, built, steps)


def _shared_out(whole: Pipeline, schedule: Schedule, steps: int) -> Pipeline:
    """Return the equal share of one of `steps` steps that overlap in `schedule`."""
    seconds = whole.seconds / steps
    return replace(
        whole,
        seconds=seconds,
        ends=(seconds,) * schedule.ranks,
        busy=tuple(each / steps for each in whole.busy),
        weight_versions=weight_versions(schedule),
        updates=updates_of(schedule) // steps,
    )


def _priced(built: Schedule, times: StageTimes, cores: float | None) -> Pipeline:
    timeline = simulate(built, times) if cores is None else simulate_shared(built, times, cores=cores)
    return Pipeline(
        seconds=timeline.makespan,
        ends=tuple(ends[-1] for ends in timeline.ends),
        busy=timeline.busy,
        in_flight=timeline.peak_activations,
        placement=built.placement,
        shared=cores is not None,
    )
