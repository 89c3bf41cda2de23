"""Devices that this process may use: the driver lists all, CUDA_VISIBLE_DEVICES hides some."""

from __future__ import annotations

import re
from collections.abc import Mapping

from planner.probe.order import neighbour_order
from profiles.topology import NodeTopology

VARIABLES = {"nvidia": ("CUDA_VISIBLE_DEVICES",), "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")}


def visible_text(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hide devices, as far as they are set."""
    names = [name for group in VARIABLES.values() for name in group]
    return {name: environment[name] for name in names if name in environment}


def only_visible(node: NodeTopology, variables: Mapping[str, str]) -> NodeTopology:
    """Return the node with the devices that are not hidden, numbered anew in the order the variable gives.

    The runtime's rules are kept: the list ends at the first entry that names no device. A variable that hides
    all devices (as in a job step without any) is told and otherwise left out of account.
    """
    vendor = node.devices[0].vendor if node.devices else "other"
    name = next((n for n in VARIABLES.get(vendor, ()) if n in variables), None)
    if name is None or not node.devices:
        return node
    chosen: list[int] = []
    for entry in variables[name].split(","):
        index = _find(node, entry.strip())
        if index is None or index in chosen:
            break
        chosen.append(index)
    count = len(node.devices)
    if not chosen:
        note = (
            f"{name}={variables[name][:60]} hides all {count} devices from this process; all are shown here"
        )
        return node.model_copy(update={"notes": (*node.notes, note)})
    if chosen == list(range(count)):
        return node
    rows = chosen + list(range(count, len(node.matrix)))
    kept = NodeTopology.model_validate(
        node.model_dump()
        | {
            "devices": [node.devices[old].model_dump() | {"index": new} for new, old in enumerate(chosen)],
            "matrix": [[node.matrix[a][b] for b in rows] for a in rows] if node.matrix else [],
            "device_order": None,
            "notes": [*node.notes, f"{name} shows {len(chosen)} of {count} devices; the others are left out"],
        },
        strict=False,
    )
    return kept.model_copy(update={"device_order": neighbour_order(kept)})


def _find(node: NodeTopology, entry: str) -> int | None:
    """Return the device of one entry: an index, or the beginning of a UUID that only one device has."""
    if re.fullmatch(r"\d{1,4}", entry):
        return int(entry) if int(entry) < len(node.devices) else None
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    found = [device.index for device in node.devices if (device.uuid or "").startswith(entry)]
    return found[0] if len(found) == 1 else None
