"""The device of a cluster: what the driver said, joined with a preset's peak rates, each with its origin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from planner.probe.identify import preset_for, short_name
from planner.probe.order import hop_count, link_count
from profiles.cluster import DeviceSpec, Precision
from profiles.presets import device_preset, preset_names
from profiles.topology import NodeDevice, NodeTopology, Problem

# Dense tensor operations per clock and multiprocessor at 16 bits, by compute capability: what the peaks of
# the data sheets come to (V100 125, A100 312, RTX 3090 71, RTX 4090 165, H100 989 TFLOP/s).
TENSOR_OPERATIONS = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 512, "8.9": 512, "9.0": 4096}
TENSOR_OPERATIONS |= {"10.0": 8192, "10.3": 8192}
CORE_OPERATIONS = {"6.0": 128, "7.0": 128, "7.5": 128, "8.0": 128}  # fp32, two a core; 256 in all others

# What a device is taken for when a file does not name it, by what can be seen of its links.
ASSUMED_BY_LINKS = {18: "h100-sxm5-80gb", 12: "a100-sxm4-40gb", 6: "v100-sxm2-16gb"}
ASSUMED_BY_CAPABILITY = {
    "7.0": "v100-sxm2-16gb",
    "8.0": "a100-sxm4-40gb",
    "8.9": "l40s",
    "9.0": "h100-sxm5-80gb",
    "10.0": "b200",
    "10.3": "b300",
}
ASSUMED_AMD, ASSUMED_AMD_IN_HOPS = "mi300x", "mi250x"
ASSUMED = "a100-sxm4-40gb"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The device that stands for all of a node, and what is doubtful about it."""

    spec: DeviceSpec
    origin: str
    problems: tuple[Problem, ...] = ()


def join_device(node: NodeTopology, *, preset: str | None = None) -> Joined:
    """Return the device of a node. `preset` is the user's word for it and goes before everything.

    Memory, power limit and multiprocessors are the driver's where it told them; peak rates are the preset's.
    A device without a preset gets rates from its clocks. Of unlike devices the smallest stands for all.
    """
    device = min(node.devices, key=lambda d: (d.memory_bytes or 0, d.multiprocessors or 0))
    watts = [d.power_watts for d in node.devices if d.power_watts]
    device = device.model_copy(update={"power_watts": min(watts, default=None)})
    kinds = sorted({d.name or "?" for d in node.devices})
    problems = []
    if len(kinds) > 1:
        problems.append(
            Problem(
                name="unlike-devices",
                message=f"the devices differ: {', '.join(kinds)}; the smallest stands for all",
                remedy="choose equal ones with CUDA_VISIBLE_DEVICES",
            )
        )
    shelf = _shelf()
    name, origin = preset, "asked for"
    if name is None:
        name, origin = preset_for(device, shelf), node.origins.get("devices", "assumed")
    if name is None and device.clock_hertz and device.memory_bytes and device.vendor == "nvidia":
        return Joined(spec=_from_clocks(device), origin=origin, problems=tuple(problems))
    if name is None:
        name = _assumed_preset(node, device, [n for n, _ in shelf])
        origin = f"assumed: {name}"
        doubt = f"no preset for {device.name}" if device.name else "nothing tells which device this is"
        problems.append(
            Problem(
                name="device-unknown",
                message=f"{doubt}; memory and rates are those of {name}",
                remedy="say which with --device NAME",
            )
        )
    spec = _from_preset(device, name, driver=node.origins.get("devices", "driver"), told=origin)
    problems += _power_cap(node)
    return Joined(spec=spec, origin=origin, problems=tuple(problems))


@cache
def _shelf() -> list[tuple[str, int]]:
    """Return the device presets and their memory; they are part of the package and do not change."""
    return [(name, device_preset(name).memory_bytes) for name in preset_names("devices")]


def _power_cap(node: NodeTopology) -> list[Problem]:
    """Return a problem when devices may draw less than they are made for: the slowest sets the pace."""
    capped = {
        device.index: (device.power_watts, device.power_default_watts)
        for device in node.devices
        if device.power_watts
        and device.power_default_watts
        and device.power_watts < 0.95 * device.power_default_watts
    }
    if not capped:
        return []
    limit, usual = min(capped.values())
    where = "" if len(capped) == len(node.devices) else f" of GPU{', GPU'.join(map(str, capped))}"
    return [
        Problem(
            name="power-cap",
            message=f"power{where} is limited to {limit:.0f} W of {usual:.0f} W; rates fall below presets",
            remedy="measure with `cuboid bench`, or lift the limit (nvidia-smi -pl)",
        )
    ]


def _from_preset(device: NodeDevice, name: str, *, driver: str, told: str) -> DeviceSpec:
    base = device_preset(name)
    sources = {field: f"preset {name}: {source}" for field, source in base.sources.items()}
    sources["name"] = told
    update: dict[str, object] = {}
    if device.memory_bytes:
        update["memory_bytes"], sources["memory_bytes"] = device.memory_bytes, driver
    if device.power_watts:
        update["power_watts"], sources["power_watts"] = device.power_watts, driver
    if device.multiprocessors:
        update["multiprocessors"], sources["multiprocessors"] = device.multiprocessors, driver
    if device.slice is not None:
        share = _share(device.multiprocessors, base.multiprocessors)
        memory = _share(device.memory_bytes, base.memory_bytes)
        update["name"] = f"{name} {device.slice}"
        update["flops_per_second"] = {p: rate * share for p, rate in base.flops_per_second.items()}
        update["memory_bytes_per_second"] = base.memory_bytes_per_second * memory
        sources["flops_per_second"] = f"preset {name} × {share:.3g} of its multiprocessors"
        sources["memory_bytes_per_second"] = f"preset {name} × {memory:.3g} of its memory"
    return base.model_copy(update={**update, "sources": sources})


def _share(part: float | None, whole: float | None) -> float:
    return min(1.0, part / whole) if part and whole else 1.0


def _from_clocks(device: NodeDevice) -> DeviceSpec:
    """Return a device that no preset describes, with peaks from its clocks."""
    capability = device.compute_capability or ""
    units = device.multiprocessors or 1
    clock = device.clock_hertz or 1e9
    fp32 = units * clock * CORE_OPERATIONS.get(capability, 256)
    tensor = units * clock * TENSOR_OPERATIONS.get(capability, 512)
    flops: dict[Precision, float] = {"fp32": fp32, "fp64": fp32 / 2, "tf32": tensor / 2, "fp16": tensor}
    flops["bf16"] = tensor if capability >= "8" or len(capability) > 3 else fp32
    derived = f"derived: {units} multiprocessors × {clock / 1e9:.3g} GHz × operations per clock"
    return DeviceSpec(
        name=(device.name or short_name(None)).lower().replace(" ", "-"),
        vendor=device.vendor,
        memory_bytes=device.memory_bytes or 1,
        memory_bytes_per_second=device.memory_bytes_per_second or 1e12,
        flops_per_second=flops,
        multiprocessors=device.multiprocessors,
        context_bytes=2e9,
        power_watts=device.power_watts,
        sources={
            "name": "driver",
            "memory_bytes": "driver",
            "memory_bytes_per_second": "derived: memory clock × bus width × 2"
            if device.memory_bytes_per_second
            else "assumed",
            "flops_per_second": derived,
            "multiprocessors": "driver",
            "power_watts": "driver",
            "context_bytes": "assumed: driver context and library buffers",
        },
    )


def _assumed_preset(node: NodeTopology, device: NodeDevice, presets: list[str]) -> str:
    """Return the preset an unnamed device is taken for: by capability, else by its number of links."""
    links = max((link_count(cell) for cell in node.matrix[device.index]), default=0) if node.matrix else 0
    total = sum(link_count(node.relation(device.index, other)) for other in range(len(node.devices)))
    guess = ASSUMED_BY_CAPABILITY.get(device.compute_capability or "")
    if guess is None and device.vendor == "amd":
        in_hops = any(hop_count(cell) > 1 for row in node.matrix for cell in row)
        guess = ASSUMED_AMD_IN_HOPS if in_hops else ASSUMED_AMD
    if guess is None:
        guess = ASSUMED_BY_LINKS.get(links if node.switched else total, ASSUMED)
    return guess if guess in presets else presets[0]
