"""NVIDIA devices, from NVML's answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.probe.accelerators import Accelerators
from planner.probe.diagnosis import (
    complaints,
    denied_problem,
    fabric_complaints,
    fabric_manager_problem,
    nothing_shown_problem,
    start_problem,
)
from planner.probe.files import Files
from planner.probe.identify import name_of_pci_id
from planner.probe.nvlink import NvLinks, ancestor, dead_links, read_links, relation
from planner.probe.nvml import Answer, Gpu, Nvml
from planner.probe.pci import (
    NVIDIA,
    PciDevice,
    is_display,
    is_nvswitch,
    link_bytes_per_second,
    list_devices,
    normal_bus_id,
    read_device,
)
from profiles.topology import NodeDevice, Problem

CLOCK_SM, CLOCK_MEMORY = 1, 2
FIELD_CHIP_LINKS = 170
MAX_DEVICES, MAX_SLICES = 64, 16
CORES_PER_MULTIPROCESSOR = {"6.0": 64, "7.0": 64, "7.5": 64, "8.0": 64}  # 128 in all others since 5.0
LOST = frozenset({"GpuIsLost", "GpuNotFound", "ResetRequired", "Unknown", "Timeout"})
FABRIC_STATES = {1: "not started", 2: "in progress"}
FABRIC_COMPLETED = 3
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One device while the whole is put together."""

    gpu: Gpu
    device: NodeDevice
    links: NvLinks = field(default_factory=NvLinks)
    fabric_state: int | None = None
    place: PciDevice | None = None


@dataclass(frozen=True, kw_only=True)
class _Board:
    """What a device and its slices have in common."""

    bus_id: str | None
    place: PciDevice | None
    capability: str | None


def read_nvidia(nvml: Nvml, files: Files) -> Accelerators:
    """Return the NVIDIA devices of this machine; without any, what stands in the way (if anything does)."""
    bus = list_devices(files)
    start = nvml.ask("nvmlInit")
    if start.reason is not None:
        on_bus = sum(d.vendor == NVIDIA and is_display(d) for d in bus)
        driver = files.text("/proc/driver/nvidia/version") is not None
        problem = start_problem(start, on_bus=on_bus, driver_file=driver)
        note = f"NVML: {start.reason}" + ("" if problem else " (no NVIDIA device on the PCI bus either)")
        return Accelerators(problems=(problem,) if problem else (), notes=(note,))
    try:
        return _read_started(nvml, files, bus)
    finally:
        nvml.ask("nvmlShutdown")


def _read_started(nvml: Nvml, files: Files, bus: tuple[PciDevice, ...]) -> Accelerators:
    count = nvml.ask("nvmlDeviceGetCount")
    seen: list[_Seen] = []
    problems: list[Problem] = []
    notes: list[str] = []
    for index in range(min(count.number() or 0, MAX_DEVICES)):
        lost = _loss(nvml, Gpu(index=index))
        if lost:
            problems.append(_lost(index, lost))
            continue
        _read_gpu(nvml, files, index, seen, problems)
    gpus_on_bus = sum(d.vendor == NVIDIA and is_display(d) for d in bus)
    if not count.number() and gpus_on_bus:
        problems.append(nothing_shown_problem(count, on_bus=gpus_on_bus))
    if not seen:
        notes.append(f"NVML shows no usable device ({count.reason or count.value})")
    whole = [each for each in seen if each.gpu.slice is None]
    problems += dead_links([each.links for each in whole], [f"GPU{each.device.index}" for each in whole])
    relations, denied = _relations(nvml, seen)
    problems += _fabric_problems(whole, denied)
    far_ends = {link.far_bus_id for each in whole for link in each.links.up if link.far_end == "switch"} - {
        None
    }
    on_bus = sum(is_nvswitch(device) for device in bus)
    hidden = any(each.links.to_unknown for each in whole)
    switched = any(each.links.to_switches for each in whole) or (hidden and bool(relations))
    if hidden and switched:
        notes.append("the driver hides the far ends of NVLinks (a virtual machine): an NVSwitch is assumed")
    if any(each.device.slice for each in seen):
        notes.append("MIG is on: slices reach each other neither over NVLink nor peer to peer")
    if any(each.device.virtual for each in seen):
        notes.append("virtual GPUs (vGPU): others may use the same devices, and NVLink may be hidden")
    return Accelerators(
        devices=tuple(each.device for each in seen),
        relations=relations,
        places={each.device.index: each.place for each in seen if each.place},
        switched=switched,
        nvswitches=(len(far_ends) or on_bus or None) if switched else 0,
        driver=nvml.ask("nvmlSystemGetDriverVersion").text(),
        problems=tuple(problems),
        notes=tuple(notes),
        origins={"devices": "NVML", "matrix": "NVML: peer-to-peer status, NVLink far ends, PCIe ancestors"},
    )


def _loss(nvml: Nvml, gpu: Gpu) -> Answer | None:
    """Return the answer that tells that a device is lost; the driver may still know its name then."""
    name, memory = nvml.ask("nvmlDeviceGetName", gpu), nvml.ask("nvmlDeviceGetMemoryInfo", gpu)
    if name.reason in LOST:
        return name
    return memory if memory.reason in {"GpuIsLost", "ResetRequired", "Timeout"} else None


def _lost(index: int, answer: Answer) -> Problem:
    return Problem(
        name="device-lost",
        message=f"GPU{index} does not answer ({answer.reason})",
        remedy="reset it or reboot the node; look for Xid messages in dmesg",
    )


def _read_gpu(nvml: Nvml, files: Files, index: int, seen: list[_Seen], problems: list[Problem]) -> None:
    """Add one device, or its slices when MIG is on."""
    gpu = Gpu(index=index)
    bus_id = normal_bus_id(str(nvml.ask("nvmlDeviceGetPciInfo", gpu).field("busId")))
    capability = ".".join(str(n) for n in nvml.ask("nvmlDeviceGetCudaComputeCapability", gpu).numbers())
    place = read_device(files, bus_id) if bus_id else None
    board = _Board(bus_id=bus_id, place=place, capability=capability or None)
    mig = nvml.ask("nvmlDeviceGetMigMode", gpu).numbers()
    if mig and mig[0] == 1:
        slices = _slices(nvml, gpu, len(seen), board)
        if not slices:
            problems.append(
                Problem(
                    name="mig-without-slices",
                    message=f"GPU{index} is in MIG mode, but no slice of it is visible",
                    remedy="create slices (nvidia-smi mig -cgi …), or turn MIG off for training",
                )
            )
        seen.extend(slices)
        return
    links = read_links(nvml, gpu, by_field=int(capability.split(".")[0] or 0) >= 9)
    fabric, state, fabric_health = _fabric(nvml, gpu)
    device = _device(nvml, gpu, len(seen), board)
    device = device.model_copy(
        update={
            "links": len(links.up),
            "link_bytes_per_second": links.bytes_per_second,
            "host_links": links.to_host or _chip_links(nvml, gpu),
            "fabric": fabric,
            "complaints": complaints(nvml, gpu) + fabric_health,
        }
    )
    seen.append(_Seen(gpu=gpu, device=device, links=links, fabric_state=state, place=place))


def _slices(nvml: Nvml, parent: Gpu, first: int, board: _Board) -> list[_Seen]:
    most = nvml.ask("nvmlDeviceGetMaxMigDeviceCount", parent).number() or 0
    found: list[_Seen] = []
    for number in range(min(most, MAX_SLICES)):
        gpu = Gpu(index=parent.index, slice=number)
        if nvml.ask("nvmlDeviceGetUUID", gpu).text() is None:
            continue
        device = _device(nvml, gpu, first + len(found), board)
        name = device.name or ""
        profile = name.rsplit("MIG ", 1)[1] if "MIG " in name else "MIG"
        device = device.model_copy(update={"slice": profile, "links": 0})
        found.append(_Seen(gpu=gpu, device=device, place=board.place))
    return found


def _device(nvml: Nvml, gpu: Gpu, index: int, board: _Board) -> NodeDevice:
    cores = nvml.ask("nvmlDeviceGetNumGpuCores", gpu).number()
    part = (
        nvml.ask("nvmlDeviceGetAttributes", gpu).field("multiprocessorCount")
        if gpu.slice is not None
        else None
    )
    clock = nvml.ask("nvmlDeviceGetMaxClockInfo", gpu, CLOCK_SM).number()
    memory_clock = nvml.ask("nvmlDeviceGetMaxClockInfo", gpu, CLOCK_MEMORY).number()
    bus_bits = nvml.ask("nvmlDeviceGetMemoryBusWidth", gpu).number()
    memory = nvml.ask("nvmlDeviceGetMemoryInfo", gpu).field("total")
    watts = nvml.ask("nvmlDeviceGetEnforcedPowerLimit", gpu).number()
    usual_watts = nvml.ask("nvmlDeviceGetPowerManagementDefaultLimit", gpu).number()
    pci = nvml.ask("nvmlDeviceGetPciInfo", gpu).field("pciDeviceId")
    generation = nvml.ask("nvmlDeviceGetMaxPcieLinkGeneration", gpu).number()
    width = nvml.ask("nvmlDeviceGetMaxPcieLinkWidth", gpu).number()
    place = board.place
    numa = place.numa_node if place else None
    pci_id = f"{pci & 0xFFFF:04x}:{pci >> 16:04x}" if isinstance(pci, int) and pci > 0 else None
    return NodeDevice(
        index=index,
        name=nvml.ask("nvmlDeviceGetName", gpu).text() or name_of_pci_id(pci_id),
        uuid=nvml.ask("nvmlDeviceGetUUID", gpu).text(),
        bus_id=board.bus_id,
        pci_id=pci_id,
        compute_capability=board.capability,
        memory_bytes=memory if isinstance(memory, int) and memory > 0 else None,
        # Two transfers a clock, on every kind of memory the driver gives a clock for.
        memory_bytes_per_second=memory_clock * 1e6 * 2 * bus_bits / 8 if memory_clock and bus_bits else None,
        multiprocessors=part
        or (cores // CORES_PER_MULTIPROCESSOR.get(board.capability or "", 128) if cores else None),
        clock_hertz=clock * 1e6 if clock else None,
        power_watts=watts / 1000 if watts else None,
        power_default_watts=usual_watts / 1000 if usual_watts else None,
        pcie_bytes_per_second=link_bytes_per_second(generation, width),
        numa_node=numa if numa is not None else _numa(nvml, gpu),
        cpus=place.cpus if place else None,
        virtual=nvml.ask("nvmlDeviceGetVirtualizationMode", gpu).number() == 2,
    )


def _chip_links(nvml: Nvml, gpu: Gpu) -> int | None:
    """Return the number of chip-to-chip links to the processor (Grace), or None."""
    count = nvml.ask("nvmlDeviceGetFieldValues", gpu, ((FIELD_CHIP_LINKS, 0),)).numbers()
    return count[0] if count and count[0] > 0 else None


def _numa(nvml: Nvml, gpu: Gpu) -> int | None:
    node = nvml.ask("nvmlDeviceGetNumaNodeId", gpu).number()
    return node if node is not None and node >= 0 else None


def _fabric(nvml: Nvml, gpu: Gpu) -> tuple[str | None, int | None, tuple[str, ...]]:
    """Return the NVLink domain that reaches beyond the node, the state of the fabric, and its complaints.

    A cluster UUID of zeros is a fabric of this node alone.
    """
    answer = nvml.ask("nvmlDeviceGetGpuFabricInfoV", gpu)
    if answer.reason is not None:
        answer = nvml.ask("nvmlDeviceGetGpuFabricInfo", gpu)
    state, clique, uuid = answer.field("state"), answer.field("cliqueId"), answer.field("clusterUuid")
    mask = answer.field("healthMask")
    health = fabric_complaints(mask) if isinstance(mask, int) and state == FABRIC_COMPLETED else ()
    name = None
    if state == FABRIC_COMPLETED and isinstance(uuid, list) and any(uuid):
        name = bytes(byte & 0xFF for byte in uuid).hex() + f"/{clique}"
    return name, state if isinstance(state, int) else None, health


def _relations(nvml: Nvml, seen: list[_Seen]) -> tuple[dict[Pair, str], dict[Pair, int]]:
    """Return the relation of every pair that the driver knows, and its status of pairs it denies NVLink."""
    relations: dict[Pair, str] = {}
    denied: dict[Pair, int] = {}
    for position, a in enumerate(seen):
        for b in seen[position + 1 :]:
            pair = (a.device.index, b.device.index)
            if a.gpu.index == b.gpu.index:
                found: str | int | None = "MIG"
            else:
                found = relation(nvml, (a.gpu, a.links), (b.gpu, b.links, b.device.bus_id))
            if isinstance(found, int):
                denied[pair] = found
            if not isinstance(found, str):
                found = ancestor(nvml, Gpu(index=a.gpu.index), Gpu(index=b.gpu.index))
            if found:
                relations[pair] = relations[pair[1], pair[0]] = found
    return relations, denied


def _fabric_problems(seen: list[_Seen], denied: dict[Pair, int]) -> list[Problem]:
    states = {FABRIC_STATES[each.fabric_state] for each in seen if each.fabric_state in FABRIC_STATES}
    if states:
        return [fabric_manager_problem(" and ".join(sorted(states)))]
    if not denied:
        return []
    on_switches = any(each.links.to_switches for each in seen)
    return [denied_problem(denied, of_pairs=len(seen) * (len(seen) - 1) // 2, on_switches=on_switches)]
