"""The bandwidths between devices in hwloc's XML: matrices over objects, in MB/s, or in hops.

An object is a device, a processor, or an NVSwitch; hwloc counts all links towards it as one value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from planner.probe.imports.xml import Element
from planner.probe.order import xgmi_cell

FAST_TABLES = frozenset({"NVLinkBandwidth", "XGMIBandwidth", "XGMIHops"})
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """One matrix of the file: objects (by type and id) and a value for every ordered pair."""

    objects: list[str]
    values: list[int]

    def between(self, first: int, second: int) -> int:
        return self.values[first * len(self.objects) + second]


@dataclass(kw_only=True)
class FastLinks:
    """Links by what they join: cells of device pairs, and links of a device to processors and switches."""

    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    to_host: dict[int, int] = field(default_factory=dict)
    to_switch: dict[int, int] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)

    @property
    def switch_count(self) -> int | None:
        """The number of NVSwitches; None when the file does not tell one from another."""
        return len(self.switches) if all(end.startswith("PCIDev") for end in self.switches) else None

    def end_elsewhere(self, here: int, far_end: str, links: int) -> None:
        """Take in links from a device to an object that is none: a processor, else a switch."""
        if far_end.startswith(("Package", "NUMANode", "Machine")):
            self.to_host[here] = self.to_host.get(here, 0) + links
        else:
            self.to_switch[here] = self.to_switch.get(here, 0) + links
            self.switches.add(far_end)

    def join(self, pair: tuple[int, int], kind: str, value: int, links: int) -> None:
        """Take in the value of a matrix for a pair of devices."""
        if kind == "NVLinkBandwidth":
            self.pairs[pair] = f"NV{links}"
        elif kind == "XGMIBandwidth":
            self.pairs[pair] = xgmi_cell(links=links)
        else:
            self.pairs.setdefault(pair, xgmi_cell(hops=value))


def has_fast_tables(root: Element) -> bool:
    """Tell whether the file has a matrix of NVLink or xGMI."""
    return any((e.get("name") or "") in FAST_TABLES for e in _tables(root))


def read_fast_links(root: Element, owner: Mapping[str, int], link_rates: Sequence[float]) -> FastLinks:
    """Return the links of the devices.

    Args:
        root: the root element of the file.
        owner: the device of every object that belongs to one, by `type:id`.
        link_rates: bytes per second of one link of each device, in one direction.
    """
    found = FastLinks()
    for table in _tables(root):
        kind, distances = table.get("name") or "", _distances(table)
        if kind not in FAST_TABLES or distances is None:
            continue
        for a, first in enumerate(distances.objects):
            for b, second in enumerate(distances.objects):
                value = distances.between(a, b)
                if a == b or value <= 0 or first not in owner:
                    continue
                links = max(1, round(value * MEGABYTE / link_rates[owner[first]]))
                if second in owner:
                    found.join((owner[first], owner[second]), kind, value, links)
                else:
                    found.end_elsewhere(owner[first], second, links)
    for a, links_a in found.to_switch.items():
        for b, links_b in found.to_switch.items():
            if a != b:
                found.pairs.setdefault((a, b), f"NV{min(links_a, links_b)}")
    return found


def _tables(root: Element) -> Iterator[Element]:
    for tag in ("distances2", "distances2hetero"):
        yield from root.descendants(tag)


def _distances(table: Element) -> _Distances | None:
    """Return a matrix; None when its parts do not fit together."""
    default = table.get("type") or ""
    objects = [
        word if ":" in word else f"{default}:{word}"
        for part in table.children
        if part.tag == "indexes"
        for word in part.text.split()
    ]
    words = [word for part in table.children if part.tag == "u64values" for word in part.text.split()]
    if not objects or len(words) != len(objects) ** 2 or not all(re.fullmatch(r"\d{1,20}", w) for w in words):
        return None
    return _Distances(objects=objects, values=[int(word) for word in words])
