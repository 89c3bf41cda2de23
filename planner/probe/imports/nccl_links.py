"""The links of GPUs in NCCL's topology file: nvlink, xgmi and c2c elements, and what joins every pair.

<nvlink target="0000:05:00.0" count="5" tclass="0x068000"/>    five links to an NVSwitch
<xgmi target="0000:15:00.0" count="1" tclass="0x120000"/>      a link to another GPU (RCCL)
<c2c bw="449988" count="1"/>                                   to the processor of a Grace superchip
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.probe.imports.xml import Element
from planner.probe.order import xgmi_cell
from planner.probe.pci import normal_bus_id

GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
SWITCH_CLASS = "0x0680"
MAX_COUNT = 1000


@dataclass(kw_only=True)
class GpuLinks:
    """The links of one GPU, by the bus id of their far end.

    `switches` holds the NVSwitches at their ends, None for those without a bus id on this host.
    """

    bus_id: str | None
    peers: Counter[str] = field(default_factory=Counter)
    to_switches: int = 0
    switches: set[str | None] = field(default_factory=set)
    to_host: int = 0
    xgmi: Counter[str] = field(default_factory=Counter)
    to_itself: bool = False

    @property
    def nvlinks(self) -> int:
        """NVLinks to other GPUs and to switches."""
        return self.peers.total() + self.to_switches


def read_links(element: Element, bus_id: str | None) -> GpuLinks:
    """Return the links below the pci element of a GPU; those without a far end are left out."""
    found = GpuLinks(bus_id=bus_id)
    for link in element.descendants():
        count = link.number("count") or 0
        if link.tag == "c2c":
            found.to_host += count if 0 < count <= MAX_COUNT else 1
        elif link.tag in {"nvlink", "xgmi"} and 0 < count <= MAX_COUNT:
            _add(found, link, count)
    return found


def _add(found: GpuLinks, link: Element, count: int) -> None:
    target = normal_bus_id(link.get("target"))
    kind = (link.get("tclass") or "").lower()
    if target is not None and target == found.bus_id:
        found.to_itself = True
    elif link.tag == "xgmi":
        found.xgmi[target or ""] += count
    elif kind.startswith(SWITCH_CLASS):
        found.to_switches += count
        # Switches that are not on this host's bus have no id, or one of all ones.
        found.switches.add(None if target is None or target.endswith(":ff:ff.0") else target)
    elif kind.startswith(GPU_CLASSES) and target:
        found.peers[target] += count
    elif kind:
        found.to_host += count


def joined_pairs(gpus: Sequence[GpuLinks]) -> dict[tuple[int, int], str]:
    """Return the cells of the pairs that NVLinks or xGMI join, in both orders."""
    xgmi = {
        (a, b): links
        for a, first in enumerate(gpus)
        for b, second in enumerate(gpus)
        if a != b and (links := max(first.xgmi[second.bus_id or "?"], second.xgmi[first.bus_id or "?"]))
    }
    cells = {pair: xgmi_cell(hops=hops) for pair, hops in hops_between(len(gpus), set(xgmi)).items()}
    cells |= {pair: xgmi_cell(links=links) for pair, links in xgmi.items()}
    for a, first in enumerate(gpus):
        for b, second in enumerate(gpus):
            direct = max(first.peers[second.bus_id or ""], second.peers[first.bus_id or ""])
            links = direct or min(first.to_switches, second.to_switches)
            if a != b and links:
                cells[a, b] = f"NV{links}"
    return cells


def hops_between(count: int, joined: set[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Return over how many of the links `joined` a device reaches another, of every pair of which it does."""
    found: dict[tuple[int, int], int] = {}
    for start in range(count):
        distance, front = {start: 0}, [start]
        while front:
            here = front.pop(0)
            for there in range(count):
                if (here, there) in joined and there not in distance:
                    distance[there] = distance[here] + 1
                    front.append(there)
        found |= {(start, end): hops for end, hops in distance.items() if end != start}
    return found
