"""The space of layouts: degrees and microbatches first, then the options of each.

    skeleton  (tp, pp, dp, microbatch)     every tp that divides heads and widths, every pp up to the layers,
                                           every dp and microbatch that honour the global batch exactly;
                                           tp · pp · dp may leave devices idle
    variant   (schedule, chunks, recompute, sequence_parallel, zero, rank_order)

Columns of a `Space` are numpy arrays of one length, a row is one complete layout. Skeletons are expanded
on demand, so a space of a hundred million layouts is counted and bounded without being stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from planner.layout import Layout, RankOrder, Recompute, check_layout
from planner.pins import Pins
from planner.schedules.families import FAMILIES, find_family
from planner.targets import Target
from profiles.cluster import ClusterSpec, Precision
from profiles.errors import ConfigError, FieldError
from profiles.model import ModelSpec

Column = NDArray[np.int64]

RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
MIXED = len(RECOMPUTES)  # per stage, whatever fits with the least work


@dataclass(frozen=True, kw_only=True)
class Skeletons:
    """Degrees and microbatch of every group of layouts; `microbatches` follows from them."""

    tp: Column
    pp: Column
    dp: Column
    microbatch: Column
    microbatches: Column

    def __len__(self) -> int:
        """Count the skeletons."""
        return len(self.tp)

    def take(self, index: Column) -> Skeletons:
        """Return the rows at `index`."""
        return Skeletons(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Complete layouts as columns; `skeleton` is the row's number in the skeletons it came from."""

    skeleton: Column
    schedule: Column
    chunks: Column
    recompute: Column
    sequence_parallel: Column
    zero: Column
    rank_order: Column

    def __len__(self) -> int:
        """Count the layouts."""
        return len(self.skeleton)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
        """Return the rows at `index`."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


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

    def expand(self, index: Column) -> Iterator[Columns]:
        """Yield all layouts of the skeletons at `index`, one batch of rows per (pp, kind of skeleton)."""
        chosen = self.skeletons.take(index)
        orders = self._orders(chosen)
        kinds = np.stack([chosen.pp, chosen.tp > 1, chosen.dp > 1, orders], axis=1)
        values, group = np.unique(kinds, axis=0, return_inverse=True)
        for number, (pp, tensor, data, order_bits) in enumerate(values.tolist()):
            rows = index[np.flatnonzero(group.ravel() == number)]
            table = self._variants(pp, bool(tensor), bool(data), order_bits)
            if len(table):
                cells = np.tile(table, (len(rows), 1))
                yield Columns(
                    skeleton=np.repeat(rows, len(table)),
                    **{name: cells[:, i] for i, name in enumerate(_VARIANT)},
                )

    def count(self) -> int:
        """Return how many complete layouts the space has."""
        orders = self._orders(self.skeletons)
        kinds = np.stack([self.skeletons.pp, self.skeletons.tp > 1, self.skeletons.dp > 1, orders], axis=1)
        values, counts = np.unique(kinds, axis=0, return_counts=True)
        sizes = [len(self._variants(pp, bool(t), bool(d), o)) for pp, t, d, o in values.tolist()]
        return int(np.dot(sizes, counts)) if sizes else 0

    def layout(self, columns: Columns, row: int) -> Layout:
        """Return one row as a layout; a mixed recompute is left at `none` for the partition to fill in."""
        s = int(columns.skeleton[row])
        recompute = int(columns.recompute[row])
        return Layout(
            tp=int(self.skeletons.tp[s]),
            pp=int(self.skeletons.pp[s]),
            dp=int(self.skeletons.dp[s]),
            microbatch=int(self.skeletons.microbatch[s]),
            global_batch=self.global_batch,
            schedule=self.schedules[int(columns.schedule[row])],
            chunks=int(columns.chunks[row]),
            recompute=RECOMPUTES[recompute] if recompute < MIXED else "none",
            sequence_parallel=bool(columns.sequence_parallel[row]),
            zero=int(columns.zero[row]),  # type: ignore[arg-type]  # one of the target's zeros
            precision=self.precision,
            rank_order=self.rank_orders[int(columns.rank_order[row])],
        )

    def _variants(self, pp: int, tensor: bool, data: bool, order_bits: int) -> Column:
        """Options of a skeleton as rows in the order of `_VARIANT`."""
        orders = [i for i in range(len(self.rank_orders)) if order_bits >> i & 1]
        recomputes = [r for r in self.recomputes if r < MIXED or pp > 1]
        parallel = self._sequence_parallel(tensor)
        zeros = self.zeros if data else tuple(z for z in self.zeros if z in {0, self.pins.get("zero")})
        rows = list(product(self._schedules(pp), recomputes, parallel, zeros, orders))
        flat = [(*schedule, r, sp, z, o) for schedule, r, sp, z, o in rows]
        return np.array(flat, dtype=np.int64).reshape(len(flat), len(_VARIANT))

    def _sequence_parallel(self, tensor: bool) -> list[int]:
        pinned = self.pins.get("sequence_parallel")
        if pinned is not None:
            return [int(pinned)] if tensor or not pinned else []
        return [0, 1] if tensor and self.target.sequence_parallel else [0]

    def _schedules(self, pp: int) -> list[tuple[int, int]]:
        """(schedule, chunks) of `pp` ranks. One rank needs no pipeline schedule: the first serves."""
        found = []
        for number, name in enumerate(self.schedules):
            family = find_family(name)
            chunks = [family.chunks]
            if family.chunked:
                chunks = list(range(family.chunks, self.model.layers // pp + 1))
            found += [
                (number, c) for c in chunks if c * pp <= self.model.layers and self.pins.allow("chunks", c)
            ]
        return found if pp > 1 else found[:1]

    def _orders(self, skeletons: Skeletons) -> Column:
        """Bits of the rank orders that differ in which neighbours share a link; see `neighbours`."""
        triples = np.stack([skeletons.tp, skeletons.pp, skeletons.dp], axis=1)
        unique, inverse = np.unique(triples, axis=0, return_inverse=True)
        bits = np.zeros(len(unique), dtype=np.int64)
        keys = [neighbours(self.cluster, order, unique) for order in self.rank_orders]
        for i, key in enumerate(keys):
            new = np.ones(len(unique), dtype=bool)
            for other in keys[:i]:
                new &= (key != other).any(axis=1)
            bits |= new.astype(np.int64) << i
        return np.asarray(bits[inverse.ravel()], dtype=np.int64)


_VARIANT = ("schedule", "chunks", "recompute", "sequence_parallel", "zero", "rank_order")


def neighbours(cluster: ClusterSpec, order: RankOrder, degrees: Column) -> Column:
    """Return how many ranks of each axis's group share one run of each link class.

    Two orders with equal rows put equal traffic on equal links, so only one of them is searched.

    Args:
        cluster: gives the spans of the links.
        order: which axis varies fastest.
        degrees: [n, 3], the degrees (tp, pp, dp).

    Returns:
        [n, 3 · links]: −1 for a group of one, 0 for a group that straddles runs unevenly.
    """
    spans = [link.span or cluster.devices for link in cluster.links]
    rows = np.empty((len(degrees), 3, len(spans)), dtype=np.int64)
    stride = np.ones(len(degrees), dtype=np.int64)
    for axis in order.split("-"):
        place = ("tp", "pp", "dp").index(axis)
        degree = degrees[:, place]
        extent = stride * degree
        for number, span in enumerate(spans):
            even = (span % extent == 0) | ((extent % span == 0) & (span % stride == 0)) | (stride % span == 0)
            inside = np.where(even, np.minimum(degree, np.maximum(1, span // stride)), 0)
            rows[:, place, number] = np.where(degree == 1, -1, inside)
        stride = extent
    return rows.reshape(len(degrees), -1)


def divisors(number: int) -> list[int]:
    """Return the divisors of `number`, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def build_space(
    model: ModelSpec,
    cluster: ClusterSpec,
    *,
    devices: int,
    global_batch: int,
    target: Target,
    pins: Pins,
    idle: bool = True,
) -> Space:
    """Return the space of layouts on up to `devices` devices (exactly `devices` unless `idle`).

    Raises:
        FieldError: when a pinned value is impossible for this model or batch.
        ConfigError: when the pins leave nothing.
    """
    _check_pins(model, devices, global_batch, target, pins)
    recomputes = [i for i, name in enumerate(RECOMPUTES) if name in target.recomputes]
    if target.recompute_per_stage and len(recomputes) > 1:
        recomputes.append(MIXED)
    pinned = pins.get("recompute")
    return Space(
        model=model,
        cluster=cluster,
        devices=devices,
        global_batch=global_batch,
        target=target,
        pins=pins,
        precision=pins.get("precision") or _precision(cluster, target),
        schedules=_schedules(target, pins),
        recomputes=tuple(recomputes) if pinned is None else (RECOMPUTES.index(pinned),),
        zeros=tuple(z for z in target.zeros if pins.allow("zero", z)),
        rank_orders=tuple(o for o in target.rank_orders if pins.allow("rank_order", o)),
        skeletons=_skeletons(model, devices, global_batch, pins, idle),
    )


def _schedules(target: Target, pins: Pins) -> tuple[str, ...]:
    pinned = pins.get("schedule")
    if pinned is not None:
        return (find_family(pinned).name,)
    known = [family.name for family in FAMILIES if family.flush]
    if target.schedules is not None:
        known = [name for name in known if name in target.schedules]
    # 1F1B first: where several schedules are alike (one rank), the plainest is named.
    return tuple(sorted(known, key=lambda name: name != "1f1b"))


def _precision(cluster: ClusterSpec, target: Target) -> Precision:
    """Return the usual training precision that both the device and the target have."""
    usual: tuple[Precision, ...] = ("bf16", "fp16", "fp32", "fp64")
    for precision in usual:
        if precision in cluster.device.flops_per_second and precision in target.precisions:
            return precision
    raise ConfigError(f"{cluster.device.name}: no precision that {target.framework} trains in")


def _skeletons(model: ModelSpec, devices: int, global_batch: int, pins: Pins, idle: bool) -> Skeletons:
    common = int(np.gcd.reduce([model.heads, model.kv_heads, model.ffn_hidden]))
    tps = [d for d in divisors(common) if d <= devices and pins.allow("tp", d)]
    pps = [p for p in range(1, min(model.layers, devices) + 1) if pins.allow("pp", p)]
    batches = [
        (dp, microbatch)
        for dp in divisors(global_batch)
        if dp <= devices and pins.allow("dp", dp)
        for microbatch in divisors(global_batch // dp)
        if pins.allow("microbatch", microbatch)
    ]
    tp, pp, batch = (
        a.ravel() for a in np.meshgrid(np.array(tps), np.array(pps), np.arange(len(batches)), indexing="ij")
    )
    dp, microbatch = (np.array([b[i] for b in batches], dtype=np.int64)[batch] for i in (0, 1))
    used = tp * pp * dp
    keep = np.flatnonzero(used <= devices if idle else used == devices)
    tp, pp, dp, microbatch = (np.asarray(a[keep], dtype=np.int64) for a in (tp, pp, dp, microbatch))
    return Skeletons(
        tp=tp, pp=pp, dp=dp, microbatch=microbatch, microbatches=global_batch // (dp * microbatch)
    )


def _check_pins(model: ModelSpec, devices: int, global_batch: int, target: Target, pins: Pins) -> None:
    """Refuse pins that no layout can meet, at the field that is wrong."""
    tp, pp, dp = (pins.get(axis) or 1 for axis in ("tp", "pp", "dp"))
    chunks, microbatch = pins.get("chunks") or 1, pins.get("microbatch") or 1
    check_layout(Layout(tp=tp, pp=pp, chunks=chunks, global_batch=1), model)
    if tp * pp * dp > devices:
        raise FieldError(("tp",), f"tp · pp · dp = {tp} · {pp} · {dp} = {tp * pp * dp} of {devices} devices")
    if global_batch % (dp * microbatch):
        field = "dp" if global_batch % dp else "microbatch"
        raise FieldError(
            (field,),
            f"dp · microbatch = {dp} · {microbatch} does not divide the global batch {global_batch}",
        )
    schedule = pins.get("schedule")
    if schedule is not None:
        find_family(schedule)
        if target.schedules is not None and schedule not in target.schedules:
            raise FieldError(("schedule",), f"{target.framework} does not run '{schedule}'")
    for field, allowed in (("zero", target.zeros), ("precision", target.precisions)):
        if pins.get(field) is not None and pins.get(field) not in allowed:
            words = ", ".join(map(str, allowed))
            raise FieldError((field,), f"{target.framework} has {words}, not {pins.get(field)}")
