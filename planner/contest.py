"""Which layouts are simulated: the most promising first, until the fastest is proved or the effort is spent.

A layout whose lower bound is no less than the fastest price cannot win. While the effort lasts, those that
could fill the table are simulated too; beyond it, only those that are expected to win, or nearly so. Of
layouts that share a row of the table (`planner.ranking`), one that is expected to be slower than another is
put off, and so is one that takes much of the effort: the first is simulated where nothing else is in the way
of a proof, the second where it promises a clear gain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.assemble import assemble, may_fit
from planner.costs import price
from planner.estimate import Estimate
from planner.frontier import Candidate, Frontier
from planner.layout import Layout
from planner.ranking import TIE, Priced, RowKey, row_key, schedule_plainness
from planner.schedules.families import find_family
from planner.schedules.family import ScheduleError
from profiles.errors import ConfigError

OVERHEAD = 500  # of one price, in simulated actions
LOOKED_AT = 100  # likewise, of a layout that is not simulated after all
MIXED_BOUND = 60  # likewise, of a bound with recomputation chosen per stage
PROOF = 2.0  # how often the effort may be spent on proving the fastest
DEAR = 3.0  # of the effort, what one price may take
DEAREST = 15.0  # likewise, where the layout is expected to be faster than all others by
GAIN = 0.02
DOUBT = 0.01  # by how much a layout may turn out faster than expected
FEW = 4  # rows without which a table is too short to stop at that,
SHORT_TABLE = 2.0  # and how many times as much is spent then


@dataclass(frozen=True, kw_only=True)
class PutOff:
    """A layout that was not simulated when its turn came."""

    layout: Layout
    expected_seconds: float
    bound_seconds: float
    dear: bool  # because of what that takes


@dataclass
class Contest:
    """Prices candidates of `frontier`; `ranked` fit, and `gap` is how far the fastest is from a proof.

    `rows` layouts of different rows are wanted; `effort` counts simulated actions.
    """

    frontier: Frontier
    rows: int
    effort: int
    ranked: list[Priced] = field(default_factory=list)
    priced: int = 0
    gap: float = 0.0
    spent: int = 0
    fastest: float = float("inf")
    groups: dict[RowKey, Priced] = field(default_factory=dict)

    def run(self) -> None:
        """Price until nothing to come can be faster than the fastest, nor belong into the table."""
        seen: set[Layout] = set()
        twins: set[tuple[Layout, float, float]] = set()
        put_off: list[PutOff] = []
        charged = 0
        for candidate in self.frontier:
            self.spent += LOOKED_AT
            self.spent += self.frontier.bounded_mixed * MIXED_BOUND - charged
            charged = self.frontier.bounded_mixed * MIXED_BOUND
            if not self._pointless(candidate):
                layout = assemble(self.frontier.space, self.frontier.pricing, candidate)
                if layout is None or not may_fit(self.frontier.pricing, layout):
                    self.frontier.infeasible["memory"] += 1
                elif layout not in seen and (twin := _twin(candidate, layout)) not in twins:
                    seen.add(layout)
                    twins.add(twin)
                    dear = self._too_dear(layout)
                    if dear or self._doubtful(candidate, layout):
                        expected, bound = candidate.expected_seconds, candidate.bound_seconds
                        put_off.append(
                            PutOff(layout=layout, expected_seconds=expected, bound_seconds=bound, dear=dear)
                        )
                    else:
                        self._price(layout)
            self.frontier.limit = self._limit()
            if self._exhausted(candidate) or self.frontier.least_bound >= self.frontier.limit:
                break
        self._look_back(put_off)

    def _look_back(self, put_off: list[PutOff]) -> None:
        """Price what was put off, where that may still decide something, and find how far a proof is."""
        left = self.frontier.least_bound
        for each in sorted(put_off, key=lambda each: each.expected_seconds):
            cost = actions(each.layout)
            gains = each.expected_seconds < self.fastest * (1 - GAIN) and cost <= DEAREST * self.effort
            affordable = not each.dear and self.spent + cost <= self._patience
            proves = affordable and each.bound_seconds < self.fastest <= self.frontier.least_bound
            if not self.ranked or gains or proves:
                self._price(each.layout)
            else:
                left = min(left, each.bound_seconds)
        if self.ranked:
            self.gap = max(0.0, 1.0 - left / self.fastest)

    def _exhausted(self, candidate: Candidate) -> bool:
        """Whether the effort is spent: on the fastest and the table, or on all that may yet be faster."""
        if not self.ranked or self.spent <= self.effort:
            return False
        unlikely = self._enough_rows and candidate.expected_seconds > self.fastest * (1 + DOUBT)
        return unlikely or self.spent > self._patience

    def _too_dear(self, layout: Layout) -> bool:
        """Whether simulating a layout would leave no time for others."""
        if not self.ranked and self.spent > self._patience:
            return False
        cost = actions(layout)
        return cost > DEAR * self.effort or self.spent + cost > self._patience

    def _doubtful(self, candidate: Candidate, layout: Layout) -> bool:
        """Whether a layout of a known row is not expected to gain."""
        known = self.groups.get(row_key(layout))
        return known is not None and candidate.expected_seconds > known[1].step_seconds * (1 + DOUBT)

    @property
    def _patience(self) -> float:
        """What may be spent at most."""
        return PROOF * self.effort * (1 if self._enough_rows else SHORT_TABLE)

    @property
    def _enough_rows(self) -> bool:
        return len(self.groups) >= min(self.rows, FEW)

    def _pointless(self, candidate: Candidate) -> bool:
        """Whether a candidate can neither win nor stand for its row."""
        if candidate.bound_seconds < self.fastest:
            return False
        space = self.frontier.space
        layout = space.layout(candidate.choices, candidate.variants, candidate.row)
        key = row_key(layout)
        known = self.groups.get((*key[:4], "mixed", *key[5:]) if candidate.mixed else key)
        if known is None:
            return False
        seconds = known[1].step_seconds
        plainer = schedule_plainness(layout.schedule) < schedule_plainness(known[0].schedule)
        most = seconds * (1 + TIE) if plainer else seconds
        return candidate.expected_seconds >= most

    def _limit(self) -> float:
        """The step below which a further layout is of interest."""
        if self.spent > self.effort and self._enough_rows:
            return self.fastest
        if len(self.groups) < self.rows:
            return float("inf")
        steps = sorted(estimate.step_seconds for _, estimate in self.groups.values())
        return max(steps[self.rows - 1], self.fastest * (1 + TIE))

    def _price(self, layout: Layout) -> None:
        space, pricing = self.frontier.space, self.frontier.pricing
        self.spent += OVERHEAD + actions(layout)
        try:
            estimate = price(
                space.model, space.cluster, layout, costs=pricing.costs, software=pricing.software
            )
        except ScheduleError:
            self.frontier.infeasible["schedule"] += 1
            return
        except ConfigError:
            self.frontier.infeasible["not measured"] += 1
            return
        self.priced += 1
        if not estimate.fits:
            self.frontier.infeasible["memory"] += 1
            return
        self._enter(layout, estimate)

    def _enter(self, layout: Layout, estimate: Estimate) -> None:
        self.ranked.append((layout, estimate))
        self.fastest = min(self.fastest, estimate.step_seconds)
        key = row_key(layout)
        if key not in self.groups or estimate.step_seconds < self.groups[key][1].step_seconds:
            self.groups[key] = (layout, estimate)


def _twin(candidate: Candidate, layout: Layout) -> tuple[Layout, float, float]:
    """What layouts have in common whose rank orders differ, but send over the same links."""
    return layout.model_copy(update={"rank_order": None}), candidate.expected_seconds, candidate.bound_seconds


def actions(layout: Layout) -> int:
    """Return about how many actions are simulated to price `layout`; long schedules are simulated in part."""
    family = find_family(layout.schedule)
    rounds = family.settled if family.seamless else 2 * family.settled + 1
    per_microbatch = layout.stages * (3 if family.split else 2)
    filled = family.placement == "v" and not family.seamless  # such lists are themselves a simulation
    return (2 if filled else 1) * per_microbatch * min(layout.microbatches, rounds * layout.pp)
