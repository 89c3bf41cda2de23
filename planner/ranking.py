"""The order of priced layouts, and which of them share one row of the ranked table.

Steps within TIE of each other are a tie, since no prediction is that sharp. The first place goes to the
plainest layout that ties with the fastest; the others follow in the order of their steps.

Layouts of the same degrees, microbatch and memory options differ only in schedule, chunks or rank order. The
plainest that ties with the fastest of them stands for all; another has a row of its own only if it needs
clearly less memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.estimate import Estimate
from planner.layout import Layout, Recompute

TIE = 0.005
LEANER = 0.1  # of the memory, that a slower schedule must save to be worth a row

Priced = tuple[Layout, Estimate]
RowKey = tuple[int, int, int, int, str, bool, int]

PLAINEST = (
    "1f1b",
    "gpipe",
    "naive",
    "interleaved-1f1b",
    "looped-bfs",
    "zb-h1",
    "zb-h2",
    "zb-v",
    "dualpipe-v",
    "v-half",
    "v-min",
)
RECOMPUTED: dict[Recompute, int] = {"none": 0, "selective": 1, "full": 2}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: the layout that stands for it and those alike, none of which gains time or memory."""

    chosen: Priced
    alike: tuple[Priced, ...] = ()


def row_key(layout: Layout) -> RowKey:
    """Return what layouts of one row have in common."""
    recompute = layout.recompute if isinstance(layout.recompute, str) else "mixed"
    degrees = (layout.tp, layout.pp, layout.dp, layout.microbatch)
    return (*degrees, recompute, layout.sequence_parallel, layout.zero)


def schedule_plainness(schedule: str) -> int:
    """Return the place of a family among all, the plainest first."""
    return PLAINEST.index(schedule) if schedule in PLAINEST else len(PLAINEST)


def plainness(layout: Layout) -> tuple[int, int, int, int, bool]:
    """Return what orders layouts that tie, the plainest first."""
    modes = (layout.recompute,) if isinstance(layout.recompute, str) else layout.recompute
    return (
        schedule_plainness(layout.schedule),
        layout.chunks,
        max(RECOMPUTED[mode] for mode in modes),
        layout.zero,
        layout.rank_order != "tp-dp-pp",
    )


def rank_rows(priced: list[Priced]) -> list[Row]:
    """Return the rows of the table, the chosen layout first."""
    groups: dict[RowKey, list[Priced]] = {}
    for pair in sorted(priced, key=_order):
        groups.setdefault(row_key(pair[0]), []).append(pair)
    rows = sorted((row for group in groups.values() for row in _rows(group)), key=lambda r: _order(r.chosen))
    if not rows:
        return []
    fastest = min(estimate.step_seconds for _, estimate in priced)
    tied = [row for row in rows if row.chosen[1].step_seconds <= fastest * (1 + TIE)]
    first = min(tied, key=lambda row: _plain_order(row.chosen))
    return [first, *(row for row in rows if row is not first)]


def _rows(group: list[Priced]) -> list[Row]:
    """Return the rows of layouts that share a key, fastest first."""
    fastest = group[0][1].step_seconds
    first = min((p for p in group if p[1].step_seconds <= fastest * (1 + TIE)), key=_plain_order)
    rows, alike = [first], []
    for pair in group:
        if pair is first:
            continue
        if pair[1].memory.peak_bytes < (1 - LEANER) * min(row[1].memory.peak_bytes for row in rows):
            rows.append(pair)
        else:
            alike.append(pair)
    return [Row(chosen=first, alike=tuple(alike)), *(Row(chosen=row) for row in rows[1:])]


def _order(pair: Priced) -> tuple[float, tuple[int, int, int, int, bool], float]:
    layout, estimate = pair
    return estimate.step_seconds, plainness(layout), estimate.memory.peak_bytes


def _plain_order(pair: Priced) -> tuple[tuple[int, int, int, int, bool], float, float]:
    layout, estimate = pair
    return plainness(layout), estimate.memory.peak_bytes, estimate.step_seconds
