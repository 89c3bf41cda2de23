"""What one rank pays after the pipeline and holds at its peak, in the layers it has; for columns of layouts.

The formulas are those of `planner.costs`; only the sums over a rank's stages are written here, so that a rank
can be priced before its layers are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.columns import LayerTimes, LayoutColumns, Seconds
from planner.costs import memory
from planner.costs.compute import Slice, optimizer_seconds
from planner.costs.flops import Number
from planner.costs.price import straggling
from planner.costs.rates import beside, gathering_seconds, reduction_seconds, sharded_seconds
from planner.costs.roofline import ELEMENT_BYTES
from planner.costs.software import Software
from planner.loads import Loads
from planner.skeletons import Column
from profiles.cluster import ClusterSpec
from profiles.model import ModelSpec

if TYPE_CHECKING:
    from profiles.costs import CostTable

SHARDED = 2  # the ZeRO stage from which on every microbatch communicates over dp


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What layouts are priced with."""

    model: ModelSpec
    cluster: ClusterSpec
    software: Software
    costs: CostTable | None = None

    @property
    def context_bytes(self) -> float:
        """Memory of a process before the first tensor."""
        if self.costs is not None and self.costs.process_bytes:
            return float(self.costs.process_bytes)
        return float(self.cluster.device.context_bytes)


def held_parameters(model: ModelSpec, tp: Number, layers: Number, *, first: Number, last: Number) -> Number:
    """Parameters of a rank with `layers` blocks and, where `first` or `last`, an end of the model."""
    whole = 2 * model.norm_parameters + (2 * model.hidden if model.linear_bias else 0)
    table = model.vocab * model.hidden / tp
    positions = model.embedding_parameters - model.vocab * model.hidden
    shared = np.logical_and(first, last) & model.tied_embeddings
    return (
        layers * ((model.block_parameters - whole) / tp + whole)
        + first * (table + positions)
        + last * (model.norm_parameters + np.where(shared, 0.0, table))
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RankBytes:
    """What the bytes of a rank are made of, for columns of layouts; `total` puts them together.

    `state` is what one parameter takes, `block` what a block keeps of a microbatch, `again` what recomputing
    one block holds for a moment, `logits` what the loss does, `fixed` what every rank has.
    """

    pricing: Pricing
    tp: Number
    state: Number
    block: Number
    embedding: Number
    head: Number
    again: Number
    logits: Number
    fixed: Number

    def total(self, *, layers: Number, depth: Number, first: Number, last: Number) -> Number:
        """Bytes of a rank with `layers` blocks and `depth` microbatches in flight."""
        held = held_parameters(self.pricing.model, self.tp, layers, first=first, last=last)
        kept = depth * (layers * self.block + first * self.embedding) + last * self.head
        moment = np.maximum(np.minimum(layers, 1) * self.again, last * self.logits)
        return held * self.state + kept + moment + self.fixed


def rank_bytes(pricing: Pricing, columns: LayoutColumns, recompute: Number) -> RankBytes:
    """Return the parts of a rank's bytes under `recompute`; see `planner.costs.memory`."""
    model, software = pricing.model, pricing.software
    part = Slice(
        microbatch=columns.microbatch,
        tp=columns.tp,
        sequence_parallel=columns.sequence_parallel,
        precision=columns.precision,
    )
    split = (columns.precision, columns.dp, columns.zero)
    whole = memory.block_activation_bytes(model, software, part)
    gathered = memory.gathered_bytes(model, software, columns.precision, columns.tp, columns.zero)
    parallel = np.where(columns.dp > 1, memory.BUCKET_BYTES + gathered, 0.0)
    return RankBytes(
        pricing=pricing,
        tp=columns.tp,
        state=memory.weight_bytes(1.0, *split)
        + memory.gradient_bytes(1.0, software, *split)
        + memory.optimizer_bytes(1.0, *split),
        block=memory.block_activation_bytes(model, software, part, recompute),
        embedding=memory.embedding_activation_bytes(model, software, part),
        head=memory.head_activation_bytes(model, software, part),
        again=np.where(np.asarray(recompute) == "none", 0.0, whole),
        logits=memory.head_workspace_bytes(model, software, part),
        fixed=parallel + pricing.context_bytes,
    )


def memory_bound(
    pricing: Pricing,
    columns: LayoutColumns,
    depths: tuple[Seconds, Seconds],
    recompute: Number,
    load: Loads,
    *,
    folded: Number = False,
) -> Seconds:
    """Return the least bytes of the fullest rank; `depths` are those of the first and the last rank.

    The fullest is at least the first, the last, and the one that has the average of the layers rounded up.
    `folded`: the first rank holds both ends of the model.
    """
    alone = np.where(folded, 1.0, columns.pp == 1)
    average = -(-pricing.model.layers // columns.pp)
    parts = rank_bytes(pricing, columns, recompute)
    peak = parts.total(layers=load.first_layers, depth=depths[0], first=1.0, last=alone)
    if not np.all(folded):
        last = parts.total(layers=load.last_layers, depth=depths[1], first=alone, last=1.0)
        peak = np.where(folded, peak, np.maximum(peak, last))
    other = parts.total(layers=average, depth=np.minimum(*depths), first=0.0, last=0.0)
    return np.asarray(np.maximum(peak, other))


def after_pipeline(
    pricing: Pricing,
    columns: LayoutColumns,
    times: LayerTimes,
    load: Loads,
    *,
    microbatches: Column,
    first_ends_last: Number,
    likely: bool = False,
) -> Seconds:
    """Return the least seconds that communication over dp and the optimizer add to the pipeline.

    The rank that finishes last hides its reduction behind at most its own last backward. With a whole
    backward that rank is the first; otherwise it may be any. With `likely`, its layers are taken to be the
    average, and a rank that may be any to lie between the ends.
    """
    model, device = pricing.model, pricing.cluster.device
    exposed = np.zeros(len(columns.tp))
    if pricing.costs is None:
        first = np.asarray(first_ends_last, dtype=float)
        fewest = np.where(first > 0, load.first_layers, np.minimum(load.first_layers, load.last_layers))
        most = np.maximum(1, load.most)
        ends: tuple[Number, Number] = (1.0, np.where(first > 0, columns.pp == 1, 1.0))
        if likely:
            fewest = model.layers / columns.pp
            most = np.maximum(1.0, fewest)
            ends = (first, first * (columns.pp == 1))
        held = held_parameters(model, columns.tp, fewest, first=first, last=0.0)
        exposed = _reduced(pricing, columns, times, held, most=most, ends=ends)
        if (columns.zero >= SHARDED).any():
            sharded = _sharded(pricing, columns, times, held, layers=fewest, ends=ends)
            exposed = exposed + microbatches * sharded
    shard = np.where(columns.zero > 0, columns.dp, 1)
    largest = np.maximum(
        held_parameters(model, columns.tp, load.first_layers, first=1.0, last=0.0),
        held_parameters(model, columns.tp, -(-model.layers // columns.pp), first=0.0, last=0.0),
    )
    costs = pricing.costs
    if costs is not None and costs.optimizer_seconds_per_parameter is not None:
        update = costs.optimizer_seconds_per_parameter * largest / shard
    else:
        gradient = memory.gradient_element_bytes(pricing.software, columns.precision)
        update = optimizer_seconds(device, largest / shard, gradient, ELEMENT_BYTES[columns.precision])
    return np.asarray(exposed + update)


def _reduced(
    pricing: Pricing,
    columns: LayoutColumns,
    times: LayerTimes,
    held: Number,
    *,
    most: Number,
    ends: tuple[Number, Number],
) -> Seconds:
    """Return the least seconds of one reduction of a step's gradients that nothing hides.

    More blocks and more to hide behind never expose more, so the most of either bounds it.
    """
    reduced = reduction_seconds(pricing.cluster, columns, pricing.software, held, None)
    hiding = most * times.block.hiding
    hiding = hiding + ends[0] * times.first_alone.hiding + ends[1] * times.last_alone.hiding
    exposed = reduced / most + beside(hiding * (1 - 1 / most), reduced * (1 - 1 / most))
    return np.asarray(exposed + gathering_seconds(pricing.cluster, columns, pricing.software, held, None))


def _sharded(
    pricing: Pricing,
    columns: LayoutColumns,
    times: LayerTimes,
    held: Number,
    *,
    layers: Number,
    ends: tuple[Number, Number],
) -> Seconds:
    """Return the least seconds that the collectives of ZeRO-2 and 3 add to one microbatch of a rank.

    Every further layer adds as much to them as to what they hide behind, so the fewest layers bound it.
    """
    blocks = np.maximum(1, layers)
    phases = sharded_seconds(pricing.cluster, columns, pricing.software, parameters=held, blocks=blocks)
    parts = (times.block, times.first_alone, times.last_alone)
    forward, backward = (
        layers * block + ends[0] * first + ends[1] * last
        for block, first, last in ([part.forward for part in parts], [part.hiding for part in parts])
    )
    gathered, scattered = phases
    if not columns.overlap.dp:
        return np.asarray(gathered + scattered)
    hidden = beside(forward, gathered) + beside(backward, scattered)
    return np.asarray((columns.dp > 1) * (hidden + (gathered + scattered) / blocks))


def waiting_share(pricing: Pricing, world_size: Number) -> Number:
    """Return the share of the pipeline's time that nodes wait for the slowest; measured costs contain it."""
    return 0.0 if pricing.costs is not None else straggling(pricing.cluster, world_size)


def fits(pricing: Pricing, peak_bytes: Seconds) -> NDArray[np.bool_]:
    """Whether a rank with these bytes runs on the cluster's device."""
    return np.asarray(memory.fits(pricing.cluster.device, peak_bytes))
