"""A machine without accelerators as a cluster of one node whose devices are rank slots."""

from __future__ import annotations

from planner.probe.host import Host
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec, Precision

# What is assumed until `bench` has measured it. fp32 operations per clock and core: two fused
# multiply-add units of 16, 8 or 4 lanes (AVX-512, AVX2, anything older or not x86).
OPERATIONS_PER_CLOCK = {"avx512f": 64, "avx2": 32, "": 16}
CLOCK_HERTZ = 2.5e9
MEMORY_BYTES = 4 << 30
CORE_MEMORY_BYTES_PER_SECOND = 10e9
MEMORY_BYTES_PER_SECOND = 100e9
LINK_BYTES_PER_SECOND = 1.5e9
LINK_LATENCY_SECONDS = 60e-6
PROCESS_BYTES = 256 << 20  # an idle Python process that has imported torch

UNTIL_BENCH = "assumed until `cuboid bench` measures it"


def cpu_cluster(host: Host, *, ranks: int | None = None) -> ClusterSpec:
    """Return this machine as one node of `ranks` devices (default: one per usable core).

    A device is one rank slot: an equal share of the memory, and the cores a rank has to itself, at least one.
    With more ranks than cores the rate is that of a rank running alone; `cores_per_node` tells the planner to
    price the sharing.
    """
    slots = ranks or host.usable_cores
    cores = max(1, host.usable_cores // slots)
    memory = host.usable_memory_bytes or MEMORY_BYTES
    clock = host.clock_hertz or CLOCK_HERTZ
    unit = next(flag for flag in OPERATIONS_PER_CLOCK if not flag or flag in host.cpu_flags)
    fp32 = clock * OPERATIONS_PER_CLOCK[unit] * cores
    flops: dict[Precision, float] = {"fp32": fp32, "fp64": fp32 / 2, "bf16": fp32, "fp16": fp32}
    arithmetic = f"{cores} core(s) × {clock / 1e9:.3g} GHz × {OPERATIONS_PER_CLOCK[unit]} operations"
    device = DeviceSpec(
        name=host.cpu_model or "cpu",
        vendor="cpu",
        memory_bytes=max(1, memory // slots),
        memory_bytes_per_second=min(CORE_MEMORY_BYTES_PER_SECOND * cores, MEMORY_BYTES_PER_SECOND),
        flops_per_second=flops,
        context_bytes=PROCESS_BYTES,
        sources={
            "name": host.origins["cpu"] if host.cpu_model else "assumed",
            "memory_bytes": f"1/{slots} of {host.origins['memory']}"
            if host.usable_memory_bytes
            else "assumed",
            "memory_bytes_per_second": UNTIL_BENCH,
            "flops_per_second": f"{UNTIL_BENCH}: {arithmetic}",
            "launch_seconds": UNTIL_BENCH,
            "context_bytes": "assumed: a Python process that has imported torch",
        },
    )
    link = LinkSpec(
        name="shared memory",
        kind="shared_memory",
        bytes_per_second=LINK_BYTES_PER_SECOND,
        latency_seconds=LINK_LATENCY_SECONDS,
        source=UNTIL_BENCH,
    )
    return ClusterSpec(
        name=host.name or "this-machine",
        device=device,
        devices_per_node=slots,
        links=(link,),
        cores_per_node=host.usable_cores,
        origins={
            "name": "/proc/sys/kernel/hostname" if host.name else "assumed",
            "device": "no accelerator was found: a device is one rank slot on the processor",
            "devices_per_node": "asked for"
            if ranks
            else f"one per usable core ({host.origins['usable_cores']})",
            "cores_per_node": host.origins["usable_cores"],
            "links": UNTIL_BENCH,
        },
        notes=(*host.notes, *_sharing(host, slots)),
    )


def _sharing(host: Host, slots: int) -> tuple[str, ...]:
    if slots <= host.usable_cores:
        return ()
    return (
        f"{slots} ranks share {host.usable_cores} core(s): step times follow from sharing, not from peaks",
    )
