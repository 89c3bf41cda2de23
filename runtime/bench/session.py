"""One bench run: rounds over all points until the time is spent. The table is written after every round, and
while the first one goes on, so that an interrupted run can be gone on from.

Every rank measures the same point at the same time. Rank 0 keeps the clock: before each point it tells all
whether to measure it and for how long. The first round gives every point a few samples; later rounds add
more, spread over the whole run, so that a disturbance of the machine does not fall on one point alone.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.distributed as dist

from profiles.bench_request import BenchRequest
from profiles.costs import CostTable
from profiles.documents import write_yaml
from runtime.bench.conditions import conditions
from runtime.bench.machine import process_bytes
from runtime.bench.measured import Measured
from runtime.bench.points import LayerPoint, MatmulPoint, OptimizerPoint, Point, optional, points
from runtime.bench.ranks import Place
from runtime.bench.sampler import Sampler
from runtime.bench.table import known_points, merge, table

LEAST_SAMPLES = 3  # of all ranks together
FIRST_ROUND_SHARE = 0.3
LAST_SECONDS = 0.1
PART_POINTS = 6  # of the first round, after which the ranks may bring together what they have
KEEP_SECONDS = 2.0
WEIGHTS = {LayerPoint: 2.0, MatmulPoint: 3.0, OptimizerPoint: 2.0}  # every other point: 1


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one rank does from joining to leaving.

    `deadline` is on `time.monotonic()` of rank 0. `known` is an earlier table of the same request: its points
    are not measured again in the first round.
    """

    request: BenchRequest
    output: Path
    deadline: float
    known: CostTable | None = None

    def __call__(self, place: Place) -> None:
        """Measure until the time is spent; rank 0 writes the table."""
        todo = points(self.request, local_ranks=place.local_ranks)
        pace = _Pace(deadline=self.deadline, window=self._window(todo))
        sampler = Sampler(self.request, place)
        results: dict[Point, Measured] = {}
        bare: int | None = None
        skip = self._known_to_rank_0(place)
        wanted, part_size = _not_known(todo, skip) or todo, PART_POINTS
        while True:
            any_fresh = False
            for part in _parts(wanted, part_size):
                fresh = dict(self._round(wanted, part, pace, sampler, place))
                any_fresh |= bool(fresh)
                for measured in _gathered(fresh, place):
                    for point, more in measured.items():
                        results.setdefault(point, Measured()).add(more)
                last = part.stop == len(wanted)
                if bare is None and self._bare_is_due(wanted, part):
                    bare = _bare_bytes(sampler, place)
                if place.rank == 0 and (last or pace.since_kept() > KEEP_SECONDS):
                    missing = [point for point in todo if point not in skip and point not in results]
                    self._keep(results, missing, place, bare)
                    pace.kept = time.monotonic()
            if not any_fresh:
                return
            wanted, part_size, pace.round_number = todo, len(todo), pace.round_number + 1

    def _bare_is_due(self, wanted: Sequence[Point], part: range) -> bool:
        """Tell whether a bare process is to be measured: after what every plan needs, or at last."""
        if self.known is not None and self.known.process_bytes:
            return False
        if part.stop == len(wanted):
            return True
        return not optional(wanted[part.start]) and optional(wanted[part.stop])

    def _keep(
        self, results: dict[Point, Measured], missing: Sequence[Point], place: Place, bare: int | None
    ) -> None:
        """Write the table; `bare` are the bytes of a process beside its tensors, where they are known yet."""
        notes = conditions(self.request, results, missing, place.device)
        now = table(self.request, results, process_bytes=bare, notes=notes)
        write_yaml(self.output, merge(self.known, now) if self.known else now)

    def _round(
        self, todo: Sequence[Point], part: range, pace: _Pace, sampler: Sampler, place: Place
    ) -> Iterator[tuple[Point, Measured]]:
        for index, point in list(enumerate(todo))[part.start : part.stop]:
            seconds = _from_rank_0(pace.allowance(point) if place.rank == 0 else None, place)
            if seconds is None:
                continue
            if place.rank == 0:
                _say(f"round {pace.round_number}, {index + 1}/{len(todo)}: {point.name}", pace)
            begin = time.monotonic()
            least = math.ceil(LEAST_SAMPLES / place.ranks) if pace.round_number == 1 else 1
            yield point, sampler.sample(point, window_seconds=seconds, least=least)
            pace.spent[point] = time.monotonic() - begin

    def _known_to_rank_0(self, place: Place) -> frozenset[Point]:
        """Other nodes may not see the earlier table; all ranks must leave out the same points."""
        message: list[frozenset[Point]] = [
            known_points(self.known, self.request) if self.known else frozenset()
        ]
        dist.broadcast_object_list(message, src=0)
        return message[0]

    def _window(self, todo: Sequence[Point]) -> float:
        return FIRST_ROUND_SHARE * self.request.seconds / sum(map(_weight, todo))


@dataclass(kw_only=True)
class _Pace:
    """How rank 0 shares out the time."""

    deadline: float
    window: float
    round_number: int = 1
    spent: dict[Point, float] = field(default_factory=dict)
    kept: float = field(default_factory=time.monotonic)  # when the table was last written

    def since_kept(self) -> float:
        """Return the seconds since the table was last written."""
        return time.monotonic() - self.kept

    def allowance(self, point: Point) -> float | None:
        """Return the seconds to sample `point` for, None to leave it out of this round."""
        left = self.deadline - time.monotonic()
        window = self.window * _weight(point)
        if self.round_number == 1:  # whatever a plan cannot do without is measured even when the time is over
            return None if left < LAST_SECONDS and optional(point) else max(0.0, min(window, left))
        return None if left < max(LAST_SECONDS, self.spent.get(point, window)) else window


def _parts(wanted: Sequence[Point], size: int) -> Iterator[range]:
    """Cut the points into parts of `size`; none holds both what every plan needs and what is optional."""
    start = 0
    while start < len(wanted):
        stop = min(start + size, len(wanted))
        while stop - 1 > start and optional(wanted[stop - 1]) != optional(wanted[start]):
            stop -= 1
        yield range(start, stop)
        start = stop


def _bare_bytes(sampler: Sampler, place: Place) -> int:
    """Return what a process holds beside its tensors once it has done all that a plan may ask of it.

    What is optional comes after it: gathers into buffers of all ranks would leave more behind than a step.
    """
    sampler.let_go()
    return process_bytes(place.device)


def _not_known(todo: Sequence[Point], known: frozenset[Point]) -> list[Point]:
    """Return the points that are not known, and the blocks from which missing recomputation is told."""
    new = [point for point in todo if point not in known]
    plain = {replace(point, recompute="none") for point in new if isinstance(point, LayerPoint)}
    return [point for point in todo if point not in known or point in plain]


def _weight(point: Point) -> float:
    return WEIGHTS.get(type(point), 1.0)


def _from_rank_0(seconds: float | None, place: Place) -> float | None:
    message = torch.tensor([-1.0 if seconds is None else seconds], dtype=torch.float64, device=place.device)
    dist.broadcast(message, src=0)
    value = float(message)
    return None if value < 0 else value


def _gathered(fresh: dict[Point, Measured], place: Place) -> list[dict[Point, Measured]]:
    """Return every rank's new samples on rank 0, nothing elsewhere."""
    if place.rank != 0:
        dist.gather_object(fresh, None, dst=0)
        return []
    parts: list[dict[Point, Measured]] = [{} for _ in range(place.ranks)]
    dist.gather_object(fresh, parts, dst=0)
    return parts


def _say(text: str, pace: _Pace) -> None:
    left = max(0.0, pace.deadline - time.monotonic())
    sys.stderr.write(f"bench: {left:5.1f} s left, {text}\n")
    sys.stderr.flush()
