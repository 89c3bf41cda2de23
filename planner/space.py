"""The space of layouts: degrees and microbatches first, then the options of each.

    skeleton  (tp, pp, dp, microbatch)     every tp that divides heads and widths, every pp up to the layers,
                                           every dp and microbatch that honour the global batch exactly;
                                           tp · pp · dp may leave devices idle
    choice    (sequence_parallel, rank_order, recompute)      decides the time of a layer
    variant   (schedule, chunks, zero)                        decides how the layers' times add up

Columns are numpy arrays of one length. Nothing below a skeleton is stored until it is asked for, so a space
of a hundred million layouts is counted and bounded in little memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.layout import Layout, RankOrder, Recompute
from planner.neighbours import distinct_orders
from planner.pin_check import check_pins
from planner.pins import Pins
from planner.schedules.families import FAMILIES, find_family
from planner.schedules.family import Family
from planner.skeletons import Column, Skeletons, all_skeletons
from planner.targets import Target
from profiles.cluster import ClusterSpec, Precision
from profiles.errors import ConfigError, InfeasibleError
from profiles.model import ModelSpec

RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
MIXED = len(RECOMPUTES)  # per stage, whatever fits with the least work


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Choices:
    """Skeletons with the options that decide the time of a layer; `skeleton` numbers the skeletons."""

    skeleton: Column
    sequence_parallel: Column
    rank_order: Column
    recompute: Column

    def __len__(self) -> int:
        """Count the choices."""
        return len(self.skeleton)

    def take(self, index: Column) -> Choices:
        """Return the rows at `index`."""
        return Choices(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Variants:
    """Complete layouts as columns; `choice` numbers the rows of the choices they came from."""

    choice: Column
    schedule: Column
    chunks: Column
    zero: Column

    def __len__(self) -> int:
        """Count the layouts."""
        return len(self.choice)


@dataclass(frozen=True, kw_only=True)
class Space:
    """Everything that may be chosen for one model on one cluster."""

    model: ModelSpec
    cluster: ClusterSpec
    devices: int
    global_batch: int
    target: Target
    pins: Pins
    precision: Precision
    schedules: tuple[str, ...]
    recomputes: tuple[int, ...]
    zeros: tuple[int, ...]
    rank_orders: tuple[RankOrder, ...]
    skeletons: Skeletons

    def choices(self, rows: Column) -> Choices:
        """Return all choices of the skeletons numbered `rows`."""
        tp, pp = self.skeletons.tp[rows], self.skeletons.pp[rows]
        distinct = self._distinct_orders(rows)
        parts = []
        for parallel in self._parallels:
            for order in range(len(self.rank_orders)):
                keep = distinct[:, order] & self._splits_sequence(tp) if parallel else distinct[:, order]
                for recompute in self.recomputes:
                    found = np.flatnonzero(keep & (pp > 1) if recompute == MIXED else keep)
                    parts.append((found, parallel, order, recompute))
        sizes = [len(found) for found, *_ in parts]
        table = np.array([part[1:] for part in parts], dtype=np.int64).reshape(len(parts), 3)
        cells = np.repeat(table, sizes, axis=0)
        return Choices(
            skeleton=rows[np.concatenate([found for found, *_ in parts])] if parts else rows[:0],
            sequence_parallel=cells[:, 0],
            rank_order=cells[:, 1],
            recompute=cells[:, 2],
        )

    def variants(self, choices: Choices) -> Variants:
        """Return all complete layouts of `choices`."""
        codes, table = np.unique(self._code(choices.skeleton), return_inverse=True)
        rows = [self._table(code) for code in codes.tolist()]
        lengths = np.array([len(each) for each in rows], dtype=np.int64)
        starts, sizes = np.cumsum(lengths) - lengths, lengths[table]
        owner = np.repeat(np.arange(len(choices)), sizes)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        cells = np.concatenate([*rows, np.zeros((0, 3), dtype=np.int64)])[starts[table[owner]] + offset]
        return Variants(choice=owner, schedule=cells[:, 0], chunks=cells[:, 1], zero=cells[:, 2])

    def count(self) -> int:
        """Return how many complete layouts the space has."""
        s = self.skeletons
        orders = distinct_orders(self.cluster, self.rank_orders, s).sum(axis=1)
        parallel = (0 in self._parallels) + (1 in self._parallels) * self._splits_sequence(s.tp).astype(
            np.int64
        )
        recomputes = len(self.recomputes) - (MIXED in self.recomputes) * (s.pp == 1)
        return int((orders * parallel * recomputes * self.sizes(np.arange(len(s)))).sum())

    def sizes(self, rows: Column) -> Column:
        """Return how many variants each choice of the skeletons numbered `rows` has."""
        return self._lengths[self._code(rows)]

    def layout(self, choices: Choices, variants: Variants, row: int) -> Layout:
        """Return one row as a layout; a mixed recompute is left at `none` for the partition to fill in."""
        choice = int(variants.choice[row])
        skeleton = int(choices.skeleton[choice])
        recompute = int(choices.recompute[choice])
        return Layout(
            tp=int(self.skeletons.tp[skeleton]),
            pp=int(self.skeletons.pp[skeleton]),
            dp=int(self.skeletons.dp[skeleton]),
            microbatch=int(self.skeletons.microbatch[skeleton]),
            global_batch=self.global_batch,
            schedule=self.schedules[int(variants.schedule[row])],
            chunks=int(variants.chunks[row]),
            recompute=RECOMPUTES[recompute] if recompute < MIXED else "none",
            sequence_parallel=bool(choices.sequence_parallel[choice]),
            zero=int(variants.zero[row]),  # type: ignore[arg-type]  # one of the target's zeros
            precision=self.precision,
            rank_order=self.rank_orders[int(choices.rank_order[choice])],
        )

    @property
    def _parallels(self) -> tuple[int, ...]:
        """Values of sequence_parallel where tp > 1; without tensor parallelism there is only 0."""
        pinned = self.pins.get("sequence_parallel")
        if pinned is not None:
            return (int(pinned),)
        return (0, 1) if self.target.sequence_parallel else (0,)

    def _splits_sequence(self, tp: Column) -> NDArray[np.bool_]:
        """Whether tensor ranks can hold equal parts of a sequence."""
        return np.asarray((tp > 1) & (self.model.seq_len % tp == 0))

    def _code(self, rows: Column) -> Column:
        """The code of the `_table` that a skeleton's variants come from."""
        s = self.skeletons
        pp = s.pp[rows]
        chunked = (pp > 1) & (s.microbatches[rows] % pp == 0) if self.target.whole_rounds else True
        return np.asarray((pp * 2 + (s.dp[rows] > 1)) * 2 + chunked)

    @cached_property
    def _lengths(self) -> Column:
        """How many rows each `_table` has, by its code."""
        lengths = np.zeros(4 * (int(self.skeletons.pp.max(initial=0)) + 1), dtype=np.int64)
        for pp, pairs in self._pairs.items():
            plain = sum(chunks == 1 for _, chunks in pairs)
            for data in (0, 1):
                zeros = len(self._zeros(data))
                lengths[4 * pp + 2 * data : 4 * pp + 2 * data + 2] = plain * zeros, len(pairs) * zeros
        return lengths

    def _table(self, code: int) -> Column:
        """[n, 3] (schedule, chunks, zero) by 4 · pp + 2 · (dp > 1) + (several chunks may take turns)."""
        pairs, zeros = self._pairs[code // 4], self._zeros(code // 2 % 2)
        rows = [(*pair, zero) for pair in pairs if code % 2 or pair[1] == 1 for zero in zeros]
        return np.array(rows, dtype=np.int64).reshape(len(rows), 3)

    def _zeros(self, data: int) -> tuple[int, ...]:
        """ZeRO stages with (1) or without (0) data parallelism; without, 0 or what is pinned."""
        return self.zeros if data else tuple(z for z in self.zeros if z in {0, self.pins.get("zero")})

    @cached_property
    def _pairs(self) -> dict[int, list[tuple[int, int]]]:
        """(schedule, chunks) by pp."""
        families = [find_family(name) for name in self.schedules]
        used = np.flatnonzero(np.bincount(self.skeletons.pp))
        return {pp: self._schedules(pp, families) for pp in used.tolist()}

    def _schedules(self, pp: int, families: list[Family]) -> list[tuple[int, int]]:
        """(schedule, chunks) of `pp` ranks. One rank needs no pipeline schedule: the first serves."""
        most, pinned = self.model.layers // pp, self.pins.get("chunks")
        found = []
        for number, family in enumerate(families):
            chunks = range(family.chunks, (most if family.chunked else min(most, family.chunks)) + 1)
            found += [(number, c) for c in chunks if pinned is None or pinned == c]
        return found if pp > 1 else found[:1]

    def _distinct_orders(self, rows: Column) -> NDArray[np.bool_]:
        return distinct_orders(self.cluster, self.rank_orders, self.skeletons.take(rows))


def build_space(
    model: ModelSpec,
    cluster: ClusterSpec,
    *,
    devices: int,
    global_batch: int,
    target: Target,
    pins: Pins,
    idle: bool = True,
    selective: bool = True,
    measured: Collection[Precision] = (),
) -> Space:
    """Return the space of layouts on up to `devices` devices (exactly `devices` unless `idle`).

    Without `selective`, selective recomputation is searched only where it is pinned: with flash attention
    nothing is kept that it could drop, so it costs time and saves no memory. Precisions that were `measured`
    go before others.

    Raises:
        FieldError: when a pinned value is impossible for this model, batch or target.
        InfeasibleError: when no layout has all pins together.
        ConfigError: when device and target share no precision.
    """
    check_pins(model, pins, devices=devices, global_batch=global_batch, target=target)
    recomputes = [
        number
        for number, name in enumerate(RECOMPUTES)
        if name in target.recomputes and (selective or name != "selective")
    ]
    if target.recompute_per_stage and len(recomputes) > 1:
        recomputes.append(MIXED)
    pinned = pins.get("recompute")
    space = Space(
        model=model,
        cluster=cluster,
        devices=devices,
        global_batch=global_batch,
        target=target,
        pins=pins,
        precision=pins.get("precision") or _precision(cluster, target, measured),
        schedules=_schedules(target, pins),
        recomputes=tuple(recomputes) if pinned is None else (RECOMPUTES.index(pinned),),
        zeros=tuple(z for z in target.zeros if pins.allow("zero", z)),
        rank_orders=tuple(o for o in target.rank_orders if pins.allow("rank_order", o)),
        skeletons=all_skeletons(model, devices=devices, global_batch=global_batch, pins=pins, idle=idle),
    )
    if pins.values and not (len(space.skeletons) and space.count()):
        raise InfeasibleError(
            f"no layout on {'up to' if idle else 'all of'} {devices} devices with a global batch of"
            f" {global_batch} has {pins.describe()}: none exists; leave a pin open, or change the batch"
        )
    return space


def _schedules(target: Target, pins: Pins) -> tuple[str, ...]:
    pinned = pins.get("schedule")
    if pinned is not None:
        return (find_family(pinned).name,)
    known = [family.name for family in FAMILIES if family.flush]
    if target.schedules is not None:
        known = [name for name in known if name in target.schedules]
    # 1F1B first: where several schedules are alike (one rank), the plainest is named.
    return tuple(sorted(known, key=lambda name: name != "1f1b"))


def _precision(cluster: ClusterSpec, target: Target, measured: Collection[Precision]) -> Precision:
    """Return the usual training precision that both the device and the target have.

    16 bits go first, bf16 unless the device has no units for it and so runs it slower than fp16.
    """
    usual: list[Precision] = ["bf16", "fp16", "fp32", "fp64"]
    rates = cluster.device.flops_per_second
    if rates.get("fp16", 0.0) > rates.get("bf16", 0.0):
        usual[:2] = ["fp16", "bf16"]
    if cluster.device.vendor == "cpu":
        usual.sort(key=lambda precision: precision != "fp32")  # as `cuboid bench` measures it
    usual.sort(key=lambda precision: precision not in measured)
    for precision in usual:
        if precision in cluster.device.flops_per_second and precision in target.precisions:
            return precision
    raise ConfigError(f"{cluster.device.name}: no precision that {target.framework} trains in")
