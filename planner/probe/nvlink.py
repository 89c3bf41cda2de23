"""NVLink: which links are up, where they lead, and what that makes of every pair of devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from planner.probe.host import format_cpu_list
from planner.probe.nvml import NO_MORE, Gpu, Nvml
from planner.probe.pci import ANCESTORS, normal_bus_id
from profiles.topology import Problem

MAX_LINKS = 36
FIELD_LINK_COUNT, FIELD_LINK_STATE = 91, 165
P2P_NVLINK, P2P_OK, P2P_SWITCHED_OFF = 2, 0, 4
FarEnd = Literal["gpu", "host", "switch", "unknown"]
FAR_ENDS: dict[int, FarEnd] = {0: "gpu", 1: "host", 2: "switch"}

# Nominal bandwidth of one link in one direction by the driver's version number of it: 1.0, 2.0, 2.2, 3.0,
# 3.1 (GA10x boards), 4.0, 5.0, 6.0 (NVIDIA data sheets; hwloc keeps the same figures up to 5.0).
LINK_BYTES_PER_SECOND = {1: 20e9, 2: 25e9, 3: 25e9, 4: 25e9, 5: 14.0625e9, 6: 25e9, 7: 50e9, 8: 50e9}


@dataclass(frozen=True, kw_only=True)
class NvLink:
    """One link of a device: whether it is up and what is at its far end (None: not told)."""

    index: int
    up: bool
    far_end: FarEnd = "unknown"
    far_bus_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class NvLinks:
    """All NVLinks of one device."""

    links: tuple[NvLink, ...] = ()
    bytes_per_second: float | None = None  # one link, one direction

    @property
    def up(self) -> tuple[NvLink, ...]:
        """The links that are up."""
        return tuple(link for link in self.links if link.up)

    @property
    def to_switches(self) -> int:
        """Links that are up and end at a switch."""
        return sum(link.far_end == "switch" for link in self.up)

    @property
    def to_host(self) -> int:
        """Links that are up and end at the processor."""
        return sum(link.far_end == "host" for link in self.up)

    @property
    def to_unknown(self) -> int:
        """Links that are up and whose far end the driver does not tell (virtual machines)."""
        return sum(
            link.far_end == "unknown" or (link.far_end == "gpu" and not link.far_bus_id) for link in self.up
        )

    def to_device(self, bus_id: str | None) -> int:
        """Links that are up and end at the device with this bus id."""
        return sum(link.far_end == "gpu" and link.far_bus_id == bus_id for link in self.up) if bus_id else 0


def read_links(nvml: Nvml, gpu: Gpu, *, by_field: bool) -> NvLinks:
    """Return the links of one device; `by_field`: from compute capability 9.0 the state is a field value."""
    count = nvml.ask("nvmlDeviceGetFieldValues", gpu, ((FIELD_LINK_COUNT, 0),)).numbers()
    links: list[NvLink] = []
    for index in range(min(count[0], MAX_LINKS) if count else MAX_LINKS):
        state, more = _state(nvml, gpu, index, by_field=by_field)
        if state is None:
            if more:
                continue
            break
        links.append(_far_end(nvml, gpu, index) if state else NvLink(index=index, up=False))
    rate = None
    first_up = next((link for link in links if link.up), None)
    if first_up:
        version = nvml.ask("nvmlDeviceGetNvLinkVersion", gpu, first_up.index).number()
        rate = LINK_BYTES_PER_SECOND.get(version or 0)
    return NvLinks(links=tuple(links), bytes_per_second=rate)


def _state(nvml: Nvml, gpu: Gpu, index: int, *, by_field: bool) -> tuple[bool | None, bool]:
    """Return whether a link is up (None: no answer) and whether it is worth asking for the next one."""
    if by_field:
        values = nvml.ask("nvmlDeviceGetFieldValues", gpu, ((FIELD_LINK_STATE, index),)).numbers()
        if values:
            return values[0] == 1, True
    answer = nvml.ask("nvmlDeviceGetNvLinkState", gpu, index)
    if answer.number() is not None:
        return answer.number() == 1, True
    return None, answer.reason not in NO_MORE | {"NotSupported", "FunctionNotFound", "NotRecorded"}


def _far_end(nvml: Nvml, gpu: Gpu, index: int) -> NvLink:
    kind = nvml.ask("nvmlDeviceGetNvLinkRemoteDeviceType", gpu, index).number()
    bus_id = normal_bus_id(str(nvml.ask("nvmlDeviceGetNvLinkRemotePciInfo", gpu, index).field("busId")))
    far_end = FAR_ENDS.get(-1 if kind is None else kind, "unknown")
    return NvLink(index=index, up=True, far_end=far_end, far_bus_id=bus_id)


def relation(
    nvml: Nvml, first: tuple[Gpu, NvLinks], second: tuple[Gpu, NvLinks, str | None]
) -> str | int | None:
    """Return `NV#` for two devices that reach each other over NVLink, the driver's status (a number) where
    links lead there but it denies the path, and None without NVLink between them.

    The state of a link says nothing about who is at its end, and a switch at its end nothing about the
    devices behind: the driver's peer-to-peer status decides.
    """
    gpu, links = first
    other, other_links, other_bus = second
    direct = links.to_device(other_bus)
    shared = min(links.to_switches, other_links.to_switches)
    hidden = min(links.to_unknown, other_links.to_unknown)
    count = direct or shared or hidden
    if not count:
        return None
    status = nvml.ask("nvmlDeviceGetP2PStatus", gpu, other, P2P_NVLINK).number()
    if status == P2P_OK or (status is None and (direct or shared)):
        return f"NV{count}"
    return None if hidden else status


def ancestor(nvml: Nvml, first: Gpu, second: Gpu) -> str | None:
    """Return the PCIe relation as the driver tells it, or None."""
    level = nvml.ask("nvmlDeviceGetTopologyCommonAncestor", first, second).number()
    return ANCESTORS.get(-1 if level is None else level)


def dead_links(links: Sequence[NvLinks], names: Sequence[str]) -> tuple[Problem, ...]:
    """Return a problem for every device with links down that its equals have up.

    A device without any link up is left alone where others have bridges: without one its links are down in
    good health. Where others reach switches, or several devices each, it has lost its place on their board.
    """
    usual = Counter(len(each.up) for each in links if each.up)
    if not usual:
        return ()
    most = max(usual)
    board = any(each.to_switches or len({link.far_bus_id for link in each.up}) > 2 for each in links)
    found = []
    for each, name in zip(links, names, strict=True):
        expected = len(each.links) if each.to_switches else most
        if len(each.up) >= expected or not (each.up or board):
            continue
        down = format_cpu_list(tuple(link.index for link in each.links if not link.up)) if each.up else ""
        found.append(
            Problem(
                name="dead-link",
                message=f"{name} has {len(each.up)} of {expected} NVLinks up"
                + (f" (down: {down})" if down else ""),
                remedy="reset it, reseat or replace the board; until then its slowest pair sets the pace",
            )
        )
    return tuple(found)
