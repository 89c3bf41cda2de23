"""Which devices belong together: islands of devices joined alike, and an order that makes them neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations, permutations

from planner.probe.pci import NEAR_TO_FAR
from profiles.topology import NodeTopology

FAST = ("NV", "XGMI", "C2C")
_COUNTED = re.compile(r"(?:NV|XGMI)([1-9]\d{0,2})")
_HOPS = re.compile(r"HOP([2-9])")


def is_fast(cell: str) -> bool:
    """Tell whether a relation is a direct link or NVSwitch, as opposed to PCIe."""
    return cell.startswith(FAST)


def link_count(cell: str) -> int:
    """Return the number of links of a cell: 12 for `NV12`, 1 for `XGMI`, 0 for PCIe and for `HOP2`."""
    counted = _COUNTED.fullmatch(cell)
    if counted:
        return int(counted[1])
    return 1 if is_fast(cell) else 0


def hop_count(cell: str) -> int:
    """Return over how many xGMI links in a row a cell leads: 1 for `XGMI`, 2 for `HOP2`, 0 without xGMI."""
    hops = _HOPS.fullmatch(cell)
    return int(hops[1]) if hops else int(cell.startswith("XGMI"))


def xgmi_cell(*, links: int = 1, hops: int = 1) -> str:
    """Return the cell of two devices that xGMI joins directly by `links`, or in `hops`."""
    if hops > 1:
        return f"HOP{min(hops, 9)}"
    return "XGMI" if links <= 1 else f"XGMI{links}"


def islands(node: NodeTopology, joined: Callable[[str], bool]) -> list[tuple[int, ...]]:
    """Return the devices in groups that relations for which `joined` holds connect, directly or in steps."""
    rest = set(range(len(node.devices)))
    groups = []
    while rest:
        group, front = set(), [min(rest)]
        while front:
            device = front.pop()
            if device in group:
                continue
            group.add(device)
            front += [other for other in rest - group if joined(node.relation(device, other))]
        groups.append(tuple(sorted(group)))
        rest -= group
    return groups


def neighbour_order(node: NodeTopology) -> tuple[int, ...] | None:
    """Return an order of the devices in which those that are joined more closely stand together.

    None when the devices are already in such an order. Ranks follow the order of CUDA_VISIBLE_DEVICES, and
    link classes speak of runs of consecutive devices, so pairs such as 0–4, 1–5 need it.
    """
    if not node.matrix:
        return None
    keys: list[list[int]] = [[] for _ in node.devices]
    tests: list[Callable[[str], bool]] = []
    for farthest in reversed(NEAR_TO_FAR[:-1]):
        near = NEAR_TO_FAR[: NEAR_TO_FAR.index(farthest) + 1]
        tests.append(lambda cell, near=near: is_fast(cell) or cell == "MIG" or cell in near)  # type: ignore[misc]
    tests.append(is_fast)
    strongest = max((link_count(cell) for row in node.matrix for cell in row), default=0)
    if strongest > 1 and not node.switched:
        tests += [lambda cell, least=n: link_count(cell) >= least for n in range(2, strongest + 1)]  # type: ignore[misc]
    # The first level at which the devices fall into runs already needs no reordering of its own.
    for joined in tests:
        for group in islands(node, joined):
            for device in group:
                keys[device].append(group[0])
    order = tuple(sorted(range(len(node.devices)), key=lambda device: (*keys[device], device)))
    return None if order == tuple(range(len(order))) else order


def runs(order: Sequence[int], span: int) -> list[tuple[int, ...]]:
    """Return the runs of `span` consecutive devices of an order."""
    return [tuple(order[i : i + span]) for i in range(0, len(order), span)]


def all_joined(node: NodeTopology, group: Sequence[int], joined: Callable[[str], bool] = is_fast) -> bool:
    """Tell whether every pair of a group is joined."""
    return all(joined(node.relation(a, b)) for a, b in combinations(group, 2))


def has_ring(node: NodeTopology, group: Sequence[int]) -> bool:
    """Tell whether a ring of fast links visits every device of a group once.

    Groups of more than nine devices count as having one when every device has two fast neighbours or more.
    """
    if len(group) == 1:
        return True
    if len(group) == 2 or all_joined(node, group):
        return all_joined(node, group)
    if len(group) > 9:
        return all(sum(is_fast(node.relation(a, b)) for b in group if b != a) >= 2 for a in group)
    first, *others = group
    return any(
        all(is_fast(node.relation(a, b)) for a, b in zip((first, *path), (*path, first), strict=True))
        for path in permutations(others)
        if path[0] < path[-1]
    )


def is_cube_mesh(node: NodeTopology) -> bool:
    """Tell the hybrid cube mesh: two fully joined fours, each device with one partner in the other four."""
    devices = range(len(node.devices))
    if len(devices) != 8 or node.switched:
        return False
    neighbours = {a: {b for b in devices if b != a and is_fast(node.relation(a, b))} for a in devices}
    if any(len(found) != 4 for found in neighbours.values()):
        return False
    for others in combinations(sorted(neighbours[0]), 3):
        four = {0, *others}
        rest = set(devices) - four
        if all_joined(node, sorted(four)) and all_joined(node, sorted(rest)):
            return all(len(neighbours[a] & rest) == 1 for a in four)
    return False
