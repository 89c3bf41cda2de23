"""What is measured: the points of one bench run, most wanted first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.layout import Recompute
from profiles.bench_request import BenchRequest
from profiles.cluster import Precision
from profiles.costs import Collective, Component

SMALL_MESSAGE_BYTES = 4096
LARGEST_MESSAGE_BYTES = 64 << 20
MESSAGE_STEP = 8  # sizes grow by this factor; between them the planner interpolates
FP32_BYTES = 4
OVERLAP_BYTES = 4 << 20
COMPONENTS: tuple[Component, ...] = ("block", "head", "embedding")


@dataclass(frozen=True, kw_only=True)
class LayerPoint:
    """One component at one microbatch size, tensor-parallel degree and variant."""

    component: Component
    microbatch: int
    tp: int
    precision: Precision
    sequence_parallel: bool = False
    recompute: Recompute = "none"

    @property
    def name(self) -> str:
        """Words for a progress line."""
        words = f"{self.component}, microbatch {self.microbatch}, tp {self.tp}, {self.precision}"
        words += ", sequence parallel" if self.sequence_parallel else ""
        return words + (f", recompute {self.recompute}" if self.recompute != "none" else "")


@dataclass(frozen=True, kw_only=True)
class CollectivePoint:
    """One collective on `groups` groups at once, each of `ranks` ranks `stride` apart."""

    operation: Collective
    ranks: int
    groups: int
    stride: int
    message_bytes: int

    @property
    def name(self) -> str:
        """Words for a progress line."""
        return f"{self.operation}, {self.groups} × {self.ranks} ranks, {self.message_bytes} B"

    def members(self, rank: int) -> tuple[int, ...]:
        """Return the ranks of the group that `rank` belongs to (beyond the last group: none).

        Groups are laid as an axis of `ranks` ranks that starts after axes of `stride` ranks in all.
        """
        block, inner = divmod(rank, self.ranks * self.stride)
        first = block * self.ranks * self.stride + inner % self.stride
        group = block * self.stride + inner % self.stride
        if group >= self.groups:
            return ()
        return tuple(range(first, first + self.ranks * self.stride, self.stride))


@dataclass(frozen=True, kw_only=True)
class MatmulPoint:
    """The best rate of a matrix product."""

    name: str = "matrix product"


@dataclass(frozen=True, kw_only=True)
class OptimizerPoint:
    """One optimizer step."""

    name: str = "optimizer"


@dataclass(frozen=True, kw_only=True)
class OverlapPoint:
    """A block beside collectives among all ranks."""

    microbatch: int
    precision: Precision
    message_bytes: int
    name: str = "computation beside collectives"


Point = LayerPoint | CollectivePoint | MatmulPoint | OptimizerPoint | OverlapPoint


def points(request: BenchRequest, *, local_ranks: int) -> list[Point]:
    """Return the points of a request in the order in which they are measured.

    Blocks come first, for they decide a plan; then what plans send; then the ends of the model. What only
    some layouts need (`optional`) comes last and is left out when the time is short.
    """
    layers = layer_points(request)
    blocks = [point for point in layers if point.component == "block"]
    ends = [point for point in layers if point.component != "block"]
    messages = collective_points(request, local_ranks=local_ranks)
    ordered: list[Point] = [*blocks, *messages, *ends, OptimizerPoint(), MatmulPoint()]
    if request.ranks > 1:
        ordered.append(overlap_point(request))
    return sorted(ordered, key=optional)


def overlap_point(request: BenchRequest) -> OverlapPoint:
    """Return the overlap to measure: the middle microbatch, and the largest message up to 4 MiB."""
    sizes = [size for size in message_sizes(request) if size <= OVERLAP_BYTES]
    return OverlapPoint(
        microbatch=request.microbatches[len(request.microbatches) // 2],
        precision=request.precision,
        message_bytes=max(sizes, default=min(message_sizes(request))),
    )


def layer_points(request: BenchRequest) -> list[LayerPoint]:
    """Return every component at every shape, and the variants that the request asks for."""
    plain = [
        LayerPoint(component=component, microbatch=microbatch, tp=tp, precision=request.precision)
        for component in COMPONENTS
        for tp in request.tensor_parallel
        for microbatch in request.microbatches
    ]
    blocks = [point for point in plain if point.component == "block"]
    parallel = [replace(point, sequence_parallel=True) for point in plain if point.tp > 1]
    modes: tuple[Recompute, ...] = ("full", "selective")
    again = [replace(point, recompute=mode) for mode in modes for point in blocks]
    return [*plain, *(again if request.recompute else ()), *(parallel if request.sequence_parallel else ())]


def optional(point: Point) -> bool:
    """Tell whether only sequence parallelism, recomputation, ZeRO or a curious reader needs the point."""
    if isinstance(point, OverlapPoint):
        return True
    if isinstance(point, LayerPoint):
        return point.sequence_parallel or point.recompute != "none"
    return isinstance(point, CollectivePoint) and point.operation in {"all_gather", "reduce_scatter"}


def message_sizes(request: BenchRequest) -> tuple[int, ...]:
    """Return message sizes from a small one to the largest that layouts of the model send.

    tp and pp send one microbatch's activations; dp sends at most all gradients.
    """
    if request.message_bytes is not None:
        return tuple(sorted(set(request.message_bytes)))
    model = request.model
    activations = max(request.microbatches) * request.seq_len * model.hidden * FP32_BYTES
    largest = min(max(activations, model.parameters * FP32_BYTES), LARGEST_MESSAGE_BYTES)
    sizes = []
    size = SMALL_MESSAGE_BYTES
    while size < largest:
        sizes.append(size)
        size *= MESSAGE_STEP
    return (*sizes, largest)


def collective_points(request: BenchRequest, *, local_ranks: int) -> list[Point]:
    """Return the collectives on the group shapes that layouts of `ranks` ranks use.

    All ranks are in some group at once, as in a step. Inside one node the distance between members does not
    matter; across nodes the groups of an outer axis (members `ranks / size` apart) are measured too.
    """
    ranks, sizes = request.ranks, message_sizes(request)
    spread_out = ranks > local_ranks
    shapes: list[tuple[Collective, int, int]] = []
    degrees = [size for size in range(2, ranks + 1) if ranks % size == 0]
    for size in degrees:
        strides = {1, ranks // size} if spread_out else {1}
        shapes.extend(("all_reduce", size, stride) for stride in sorted(strides))
    if ranks > 1:
        shapes.extend(("send_recv", 2, stride) for stride in ((1, ranks // 2) if spread_out else (1,)))
    for size in degrees:
        shapes.extend((operation, size, 1) for operation in ("all_gather", "reduce_scatter"))
    return [
        CollectivePoint(
            operation=operation, ranks=size, groups=max(1, ranks // size), stride=stride, message_bytes=bytes_
        )
        for operation, size, stride in shapes
        for bytes_ in sizes
    ]
