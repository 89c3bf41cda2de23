"""The constants of the cost model as a whole, each with its value and its source, for `cuboid explain`.

Those of a device or a link stand in its preset; those of a kind of training code in `planner.costs.software`.
"""

from __future__ import annotations

from planner.costs import Assessment, communication, compute, memory, rates, roofline
from planner.costs.price import STRAGGLER_SHARE
from planner.plan import Plan
from profiles.units import format_bytes, format_seconds

PUBLISHED = "fitted to published runs, with all other constants (profiles/published; cuboid validate)"
PRODUCTS = "fitted to 183 products measured on an A100, mean error 3 % (SimuMax@4dcaae5 a100_pcie.json)"
KERNELS = "fitted to 24 attention kernels measured on an A100 (SimuMax@4dcaae5 a100_pcie.json)"


def product_lines() -> tuple[str, ...]:
    """Return what shapes the time of a matrix product."""
    tiles = ", ".join(f"{rows}×{columns} at {rate:g}" for rows, columns, rate in roofline.TILES)
    splits = ", ".join(map(str, roofline.SPLITS))
    return (
        f"tiles of a product: {tiles} of the rate, split along k by {splits} ({PRODUCTS})",
        f"PROLOGUE_DEPTH = {roofline.PROLOGUE_DEPTH} steps of k more ({PRODUCTS}, with published runs)",
        f"WEIGHT_GRADIENT_FACTOR = {roofline.WEIGHT_GRADIENT_FACTOR} ({PRODUCTS})",
        f"KERNEL_SECONDS = {format_seconds(roofline.KERNEL_SECONDS)} ({PRODUCTS}, with published runs)",
        f"widths that cannot be loaded wide: × {roofline.PART_LINE_FACTOR} off a cache line"
        f" (hidden 14,400 against 14,336, BigScience 2022), × {roofline.MISALIGNED_FACTOR} off 16 bytes,"
        f" × {roofline.ODD_FACTOR} odd, × {roofline.MISALIGNED_BATCH_FACTOR} strided products ({PUBLISHED})",
    )


def attention_lines(assessment: Assessment) -> tuple[str, ...]:
    """Return what shapes the time of attention in the code at hand."""
    if not assessment.software.flash_attention:
        return (
            f"RANDOM_BYTES = {compute.RANDOM_BYTES} a random number of dropout ({PUBLISHED})",
            f"SOFTMAX_GROUP = {compute.SOFTMAX_GROUP} matrices (Megatron-LM's fused softmax)",
        )
    return (
        f"FLASH_ROWS = {compute.FLASH_ROWS} a tile, FLASH_FILL = {compute.FLASH_FILL_FORWARD} forward and"
        f" {compute.FLASH_FILL_BACKWARD} backward ({KERNELS})",
        f"FLASH_BACKWARD_FACTOR = {compute.FLASH_BACKWARD_FACTOR} of the forward's rate"
        f" (0.86 in 24 kernels measured on an A100; {PUBLISHED})",
    )


def host_lines(assessment: Assessment) -> tuple[str, ...]:
    """Return what shapes the time in which the host starts kernels."""
    return (
        f"HOST_JITTER = {compute.HOST_JITTER} · (√tp − 1) ({PUBLISHED})",
        f"COLLECTIVE_LAUNCHES = {compute.COLLECTIVE_LAUNCHES} kernels ({PUBLISHED})",
        f"CHECKPOINT_LAUNCHES = {compute.CHECKPOINT_LAUNCHES} kernels a recomputed block ({PUBLISHED})",
        f"host and device take turns with exponent {float(assessment.pieces.blend):g}"
        f" (HOST_BLEND {rates.HOST_BLEND} alone, GROUP_BLEND {rates.GROUP_BLEND} in groups; {PUBLISHED})",
    )


def software_lines(assessment: Assessment, *names: str) -> tuple[str, ...]:
    """Return properties of the training code, with what the code is."""
    software = assessment.software
    return tuple(
        f"{name} = {getattr(software, name):g} ({software.name} code: {software.source}; {PUBLISHED})"
        for name in names
    )


def collective_lines() -> tuple[str, ...]:
    """Return what every collective costs beside its volume and its hops."""
    return (
        f"START_SECONDS = {format_seconds(communication.START_SECONDS)} a collective ({PUBLISHED};"
        " 40 to 90 µs on 2 to 8 A100, vTrain@f8dda84)",
    )


def overlap_lines() -> tuple[str, ...]:
    """Return what communication takes from the compute beside it."""
    return (
        f"OVERLAP_SLOWDOWN = {rates.OVERLAP_SLOWDOWN} of the time both run (published FSDP runs; a lone pair"
        " of kernels: 0.126, Hetu-Galvatron@cea12ff)",
    )


def straggler_lines() -> tuple[str, ...]:
    """Return what ranks wait for slow nodes."""
    return (
        f"STRAGGLER_SHARE = {STRAGGLER_SHARE} a doubling of the nodes (530B on 280 → 2,240 A100:"
        " Korthikanti et al. 2022, §6; 7B on 64 → 1,024: InternEvo)",
    )


def memory_lines(plan: Plan) -> tuple[str, ...]:
    """Return the buffers that are not counted tensor by tensor."""
    if plan.layout.dp == 1:
        return ()
    return (f"BUCKET_BYTES = {format_bytes(memory.BUCKET_BYTES)} of gradients in flight (assumed)",)


def fragmentation_line() -> str:
    """Return what the allocator is taken to lose."""
    return f"FRAGMENTATION = {memory.FRAGMENTATION:g} of the tensors (assumed)"
