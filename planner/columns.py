"""The times of a layer for many layouts at once: the planner's own cost functions, applied to columns.

Most columns repeat: a layer's time depends on tp, microbatch and sequence parallelism, a transfer's on the
links it crosses. Each distinct combination is priced once and looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from planner.costs.flops import Number
from planner.costs.rates import Phases, Pieces, analytic_pieces, measured_pieces, stage_phases
from planner.costs.software import Software
from planner.layout import Layout, Overlap, RankOrder
from planner.skeletons import Column
from planner.space import MIXED, RECOMPUTES, Choices, Space
from profiles.cluster import ClusterSpec, Precision
from profiles.errors import ConfigError

if TYPE_CHECKING:
    from profiles.costs import CostTable

Seconds = NDArray[np.float64]

MAX_TABLE = 8_000_000  # entries of a look-up table
_RECOMPUTE_OF = (*RECOMPUTES, "none")  # chosen per stage: at least none
_FULL = MIXED - 1
MANY = 1e5  # blocks beside which an end's share is as small as it gets


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LayoutColumns:
    """Many layouts as columns, in the shape that `planner.costs` prices."""

    tp: Column
    pp: Column
    dp: Column
    microbatch: Column
    sequence_parallel: NDArray[np.bool_]
    zero: Column
    rank_order: Column
    orders: tuple[RankOrder, ...]
    precision: Precision
    overlap: Overlap = field(default_factory=Overlap)

    def take(self, index: Column) -> LayoutColumns:
        """Return the rows at `index`."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    @property
    def world_size(self) -> Column:
        """Ranks of the whole cuboid."""
        return self.tp * self.pp * self.dp

    def stride(self, axis: Literal["tp", "dp", "pp"], /) -> Column:
        """Return the distance in ranks between neighbours along `axis`; see `Layout.stride`."""
        degrees = {"tp": self.tp, "dp": self.dp, "pp": self.pp}
        result = np.ones_like(self.tp)
        for number, order in enumerate(self.orders):
            product = np.ones_like(self.tp)
            for name in order.split("-"):
                if name == axis:
                    break
                product = product * degrees[name]
            result = np.where(self.rank_order == number, product, result)
        return result


COLUMNS = ("tp", "pp", "dp", "microbatch", "sequence_parallel", "zero", "rank_order")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Part:
    """Seconds of one microbatch in a part of a stage, with recomputation, tp traffic and waits for the host.

    `hiding` is the time of the backward beside which gradients are reduced.
    """

    forward: Seconds
    backward: Seconds
    weight_gradient: Seconds
    hiding: Seconds

    @property
    def both(self) -> Seconds:
        """Forward and backward."""
        return self.forward + self.backward

    def take(self, index: Column) -> Part:
        """Return the rows at `index`."""
        return Part(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LayerTimes:
    """Times per choice: a block, what the first and the last stage add to their blocks, and one hop.

    A stage of n blocks takes n · block when it has no end; an end adds at least `first` (or `last`) and at
    most `first_alone`: where device and host take turns in waiting, a sum is quicker than its parts.
    A mixed recompute counts as none.
    """

    block: Part
    first: Part
    last: Part
    first_alone: Part
    last_alone: Part
    hop: Seconds
    known: NDArray[np.bool_]

    def take(self, index: Column) -> LayerTimes:
        """Return the rows at `index`."""
        parts = {name: getattr(self, name).take(index) for name in PARTS}
        return LayerTimes(**parts, hop=self.hop[index], known=self.known[index])


PARTS = ("block", "first", "last", "first_alone", "last_alone")


def choice_columns(space: Space, choices: Choices) -> LayoutColumns:
    """Return the choices as columns."""
    skeletons = space.skeletons.take(choices.skeleton)
    return LayoutColumns(
        tp=skeletons.tp,
        pp=skeletons.pp,
        dp=skeletons.dp,
        microbatch=skeletons.microbatch,
        sequence_parallel=choices.sequence_parallel.astype(bool),
        zero=np.zeros_like(skeletons.tp),
        rank_order=choices.rank_order,
        orders=space.rank_orders,
        precision=space.precision,
    )


def layer_times(space: Space, choices: Choices, software: Software, costs: CostTable | None) -> LayerTimes:
    """Return the times of `choices`; see `LayerTimes`."""
    return mode_times(space, choices, software, costs)[0]


def mode_times(
    space: Space,
    choices: Choices,
    software: Software,
    costs: CostTable | None,
    modes: Sequence[int | None] = (None,),
) -> list[LayerTimes]:
    """Return the times of `choices` once for each of `modes`, a recomputation; None is the choices' own."""
    columns = choice_columns(space, choices)
    first, inverse = _distinct(space.cluster, columns)
    if costs is None:
        pieces, known = _analytic(space, software, columns, first), np.ones(len(first), dtype=bool)
    else:
        pieces, known = _measured(space, costs, choices, first)
    return _assemble(pieces, known, inverse, [choices.recompute if mode is None else mode for mode in modes])


def _distinct(cluster: ClusterSpec, columns: LayoutColumns) -> tuple[Column, Column]:
    """Rows that differ in what the times depend on, and for each row the number of its representative.

    Strides beyond the widest inner link all cross the outermost one, and so do all members that a group has
    beyond one run of a link.
    """
    widest = max([link.span or cluster.devices for link in cluster.links[:-1]], default=1)
    tp_stride = np.minimum(columns.stride("tp"), widest + 1)
    pp_stride = np.minimum(columns.stride("pp"), widest + 1)
    members = np.minimum(columns.pp, widest + 1)
    code: Column = np.zeros(len(columns.tp), dtype=np.int64)
    for degrees in (columns.tp, columns.microbatch):
        code = code * (int(degrees.max(initial=0)) + 1) + degrees
    for small in (columns.sequence_parallel.astype(np.int64), tp_stride, pp_stride, members):
        code = code * (int(small.max(initial=0)) + 1) + small
    return representatives(code)


def representatives(code: Column) -> tuple[Column, Column]:
    """First row of every distinct code, and for each row the number of its representative."""
    size = int(code.max(initial=0)) + 1
    if size > MAX_TABLE:
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        return first, inverse.ravel()
    # A table over all codes is several times quicker than sorting.
    table = np.full(size, -1, dtype=np.int64)
    table[code[::-1]] = np.arange(len(code))[::-1]
    first = table[table >= 0]
    table[code[first]] = np.arange(len(first))
    return first, table[code]


def _analytic(space: Space, software: Software, columns: LayoutColumns, rows: Column) -> Pieces:
    return analytic_pieces(space.model, space.cluster, columns.take(rows), software)


def _measured(
    space: Space, costs: CostTable, choices: Choices, rows: Column
) -> tuple[Pieces, NDArray[np.bool_]]:
    """Look every distinct combination up; a rank alone on its processor is never slower than among others."""
    found: list[Pieces | None] = []
    for row in rows.tolist():
        skeleton = int(choices.skeleton[row])
        layout = Layout(
            tp=int(space.skeletons.tp[skeleton]),
            pp=int(space.skeletons.pp[skeleton]),
            dp=int(space.skeletons.dp[skeleton]),
            microbatch=int(space.skeletons.microbatch[skeleton]),
            global_batch=space.global_batch,
            sequence_parallel=bool(choices.sequence_parallel[row]),
            precision=space.precision,
            rank_order=space.rank_orders[int(choices.rank_order[row])],
        )
        try:
            found.append(measured_pieces(space.model, space.cluster, layout, costs, processor_seconds=True))
        except ConfigError:
            found.append(None)
    known = np.array([pieces is not None for pieces in found], dtype=bool)
    filler = next((pieces for pieces in found if pieces is not None), None)
    if filler is None:
        raise ConfigError("the cost table has no shape that any of these layouts needs; run `cuboid bench`")
    return _stack([pieces or filler for pieces in found]), known


def _stack(found: list[Pieces]) -> Pieces:
    def stacked(values: list[float]) -> Seconds:
        return np.array(values, dtype=np.float64)

    components: dict[str, Any] = {
        name: replace(
            getattr(found[0], name),
            **{
                part: stacked([float(getattr(getattr(pieces, name), part)) for pieces in found])
                for part in (
                    "forward",
                    "backward",
                    "weight_gradient",
                    "recompute_selective",
                    "recompute_full",
                )
            },
        )
        for name in ("block", "embedding", "head")
    }
    scalars: dict[str, Any] = {
        f.name: stacked([float(getattr(pieces, f.name)) for pieces in found])
        for f in fields(Pieces)
        if f.name.startswith(("tp_", "hop_"))
    }
    return replace(found[0], **components, **scalars)


def _assemble(
    pieces: Pieces, known: NDArray[np.bool_], inverse: Column, recomputes: Sequence[Column | int]
) -> list[LayerTimes]:
    """Add the pieces up as a stage does, for every choice; `recomputes` give one mode, or one a row."""
    wanted = {mode for recompute in recomputes for mode in _modes(recompute)}
    wanted |= {_FULL} if MIXED in wanted else set()

    def part(layers: float, *, first: float = 0.0, last: float = 0.0) -> _PartPhases:
        def phases(mode: int) -> Phases:
            return stage_phases(pieces, layers, first=first, last=last, recompute=_RECOMPUTE_OF[mode])

        return _PartPhases(known=known, inverse=inverse, phases={mode: phases(mode) for mode in {0, *wanted}})

    alike = {
        "block": part(1.0),
        "first": part(MANY, first=1.0),
        "last": part(MANY, last=1.0),
        "first_alone": part(0.0, first=1.0),
        "last_alone": part(0.0, last=1.0),
    }
    hop = _column(pieces.hop_seconds + pieces.hop_latency, len(known))[inverse]
    found = []
    for recompute in recomputes:
        parts = {name: phases.under(recompute) for name, phases in alike.items()}
        for end in ("first", "last"):
            parts[end] = _added(parts[end], parts["block"])
        found.append(LayerTimes(**parts, hop=hop, known=known[inverse]))
    return found


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _PartPhases:
    """A part of a stage under each recomputation; `inverse` gives the place of every choice in its arrays."""

    known: NDArray[np.bool_]
    inverse: Column
    phases: Mapping[int, Phases]

    def under(self, recompute: Column | int) -> Part:
        plain = self.phases[0]
        return Part(
            forward=self._of(plain.forward_seconds),
            backward=self._chosen(recompute, lambda phases: phases.backward_seconds),
            weight_gradient=self._of(plain.weight_gradient),
            hiding=self._chosen(recompute, lambda phases: phases.backward + phases.recompute, mixed=_FULL),
        )

    def _of(self, value: Number) -> Seconds:
        return _column(value, len(self.known))[self.inverse]

    def _chosen(
        self,
        recompute: Column | int,
        value: Callable[[Phases], Number],
        *,
        mixed: int = MIXED,
    ) -> Seconds:
        """Return a value under each row's recomputation; one chosen per stage counts as `mixed`."""
        modes = _modes(recompute)
        found = [value(self.phases[mixed if mode == MIXED else mode]) for mode in modes]
        if len(found) == 1:
            return self._of(found[0])
        place = np.zeros(MIXED + 1, dtype=np.int64)
        place[modes] = np.arange(len(modes))
        table = np.stack([_column(each, len(self.known)) for each in found])
        return np.asarray(table[place[recompute], self.inverse])


def _modes(recompute: Column | int) -> list[int]:
    """Return the recomputations that occur."""
    if isinstance(recompute, int):
        return [recompute]
    return np.flatnonzero(np.bincount(recompute, minlength=1)).tolist() or [0]


def _column(value: Number, size: int) -> Seconds:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (size,))


def _added(more: Part, blocks: Part) -> Part:
    """What an end adds at least: its share beside very many blocks, less the rounding."""
    return Part(
        **{
            f.name: np.maximum(0.0, getattr(more, f.name) - MANY * getattr(blocks, f.name)) * (1 - 2 / MANY)
            for f in fields(Part)
        }
    )
