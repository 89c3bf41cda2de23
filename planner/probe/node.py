"""One node as it is: devices, NICs, and the matrix of their relations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.probe.accelerators import Accelerators
from planner.probe.amd import read_amd
from planner.probe.files import Files
from planner.probe.host import Host
from planner.probe.network import read_nics
from planner.probe.nvidia import read_nvidia
from planner.probe.nvml import Nvml
from planner.probe.order import neighbour_order
from planner.probe.pci import PciDevice, distance
from profiles.topology import NodeDevice, NodeNic, NodeTopology, Problem

Matrix = tuple[tuple[str, ...], ...]


def read_node(nvml: Nvml, files: Files, host: Host) -> NodeTopology:
    """Return this node. NVIDIA devices come first; AMD ones are looked for when there are none."""
    nvidia = read_nvidia(nvml, files)
    amd = read_amd(files) if not nvidia.devices else Accelerators()
    found = nvidia if nvidia.devices else amd
    nics, places, nic_notes = read_nics(files)
    numa = host.numa_nodes
    matrix = _matrix(found, nics, places, numa)
    nics = mark_compute(nics, matrix, len(found.devices))
    node = NodeTopology(
        host=host.name,
        system=files.text("/sys/class/dmi/id/product_name"),
        devices=found.devices,
        nics=nics,
        matrix=matrix,
        numa_nodes=numa,
        nvswitches=found.nvswitches,
        switched=found.switched,
        cpu_model=host.cpu_model,
        cores=host.usable_cores,
        memory_bytes=host.usable_memory_bytes,
        driver=found.driver,
        gpu_direct=_gpu_direct(files),
        problems=(*nvidia.problems, *amd.problems, *nic_problems(nics)),
        notes=(*(nvidia.notes if not amd.devices else ()), *amd.notes, *nic_notes, *host.notes),
        origins={**found.origins, "nics": "/sys/class/infiniband" if _has_rdma(nics) else "/sys/class/net"},
    )
    return node.model_copy(update={"device_order": neighbour_order(node)})


def build_matrix(
    devices: Sequence[NodeDevice], nics: Sequence[NodeNic], relation: Callable[[int, int], str]
) -> Matrix:
    """Return the square matrix of devices then NICs from a relation of any two rows."""
    size = len(devices) + len(nics)
    return tuple(tuple("X" if a == b else relation(a, b) for b in range(size)) for a in range(size))


def _matrix(
    found: Accelerators, nics: Sequence[NodeNic], nic_places: dict[str, PciDevice], numa_nodes: int | None
) -> Matrix:
    places: list[PciDevice | None] = [found.places.get(d.index) for d in found.devices]
    places += [nic_places.get(nic.name) for nic in nics]
    numa: list[int | None] = [d.numa_node for d in found.devices] + [nic.numa_node for nic in nics]

    def relation(a: int, b: int) -> str:
        known = found.relations.get((a, b))
        if known:
            return known
        first, second = places[a], places[b]
        if first is None or second is None:
            return "?"
        if first.bus_id == second.bus_id:
            return "PIX"
        return distance(first.path, second.path, numa=(numa[a], numa[b]), numa_nodes=numa_nodes)

    return build_matrix(found.devices, nics, relation)


def mark_compute(nics: Sequence[NodeNic], matrix: Matrix, devices: int) -> tuple[NodeNic, ...]:
    """Return the NICs with `compute` set for those that training traffic should use.

    Storage and management ports are told apart as far as that can be: they are slower than half the fastest
    port, plain Ethernet beside RDMA ports, or far from every device while at least half of the fast ports sit
    on a switch with one.
    """
    usable = [i for i, nic in enumerate(nics) if nic.state != "down"]
    usable = [i for i in usable if nics[i].kind != "ethernet"] or usable
    top = max((nics[i].bytes_per_second or 0 for i in usable), default=0)
    fast = [i for i in usable if (nics[i].bytes_per_second or top) >= top / 2]
    near = [i for i in fast if any(matrix[devices + i][d] in {"PIX", "PXB"} for d in range(devices))]
    chosen = set(near if near and 2 * len(near) >= len(fast) else fast)
    return tuple(
        nic.model_copy(update={"compute": i in chosen or nic.state == "down"}) for i, nic in enumerate(nics)
    )


def nic_problems(nics: Sequence[NodeNic]) -> tuple[Problem, ...]:
    """Return a problem for the ports that are down while others are up."""
    down = [nic.name for nic in nics if nic.state == "down"]
    if not down:
        return ()
    return (
        Problem(
            name="nic-down",
            message=f"{len(down)} of {len(nics)} NIC port(s) are down: {', '.join(down)}",
            remedy="check the cable and the switch port; unused ports can be ignored",
        ),
    )


def _has_rdma(nics: Sequence[NodeNic]) -> bool:
    return any(nic.kind != "ethernet" for nic in nics)


def _gpu_direct(files: Files) -> str | None:
    """Return how NICs reach device memory: a kernel module of NVIDIA's, or dma-buf of its open driver."""
    if files.names("/sys/module/nvidia_peermem"):
        return "nvidia_peermem"
    if "Open Kernel Module" in (files.text("/proc/driver/nvidia/version") or ""):
        return "dma-buf"
    return None
