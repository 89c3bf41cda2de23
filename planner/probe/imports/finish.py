"""What every imported topology goes through at its end: order, board, bridges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from planner.probe.identify import short_name
from planner.probe.node import Matrix, mark_compute
from planner.probe.order import hop_count, is_cube_mesh, is_fast, islands, link_count, neighbour_order
from planner.probe.pci import NEAR_TO_FAR
from profiles.topology import NodeDevice, NodeTopology, Problem

MOST_LINKS = 18  # of one device, as of NVLink 5
BRIDGE_LINKS = frozenset({1, 2, 4, 6, 12, 18})  # what the bridges and boards sold join two devices with
# Boards of eight whose devices NVSwitches join: links of a device, and bytes per second of one.
SWITCHED_BOARDS = {
    "A100": (12, 25e9),
    "A800": (8, 25e9),
    "H100": (18, 25e9),
    "H200": (18, 25e9),
    "H20": (18, 25e9),
    "H800": (8, 25e9),
    "B200": (18, 50e9),
    "B300": (18, 50e9),
}


def finish(node: NodeTopology) -> NodeTopology:
    """Return the node with NICs told apart, an order of neighbours, and what is odd about its links.

    A file that cannot show NVLink leaves a known board of eight with the links such boards have, marked as
    assumed.
    """
    matrix = symmetric(node.matrix)
    notes = node.notes
    if matrix != node.matrix:
        notes = (*notes, "the two directions of some pairs differ in the file; the weaker one counts")
    nics = mark_compute(node.nics, matrix, len(node.devices))
    node = node.model_copy(update={"nics": nics, "matrix": matrix, "notes": notes})
    if node.links == "unknown":
        node = _assume_board(node)
    node = _count_links(node)
    problems = bridge_problems(node) or missing_links(node)
    return node.model_copy(
        update={"device_order": neighbour_order(node), "problems": (*node.problems, *problems)}
    )


def symmetric(matrix: Matrix) -> Matrix:
    """Return the matrix with the weaker of the two directions of every pair in both."""

    def strength(cell: str) -> tuple[int, int, int]:
        near = NEAR_TO_FAR.index(cell) if cell in NEAR_TO_FAR else len(NEAR_TO_FAR)
        return link_count(cell), -near, -hop_count(cell)

    size = range(len(matrix))
    return tuple(tuple(min(matrix[a][b], matrix[b][a], key=strength) for b in size) for a in size)


def identify_as(node: NodeTopology, device: str) -> NodeTopology:
    """Return a node whose file did not name its devices with the user's word for them."""
    devices = tuple(d if d.name else d.model_copy(update={"name": device}) for d in node.devices)
    node = node.model_copy(update={"devices": devices})
    return _assume_board(node) if node.links == "unknown" else node


def is_switched(node: NodeTopology) -> bool:
    """Tell whether a device has more links to all others than it has ports: a switch must be between."""
    devices = range(len(node.devices))
    nvlink = [[cell if cell.startswith("NV") else "?" for cell in row] for row in node.matrix]
    return any(sum(link_count(nvlink[a][b]) for b in devices if b != a) > MOST_LINKS for a in devices)


def bridge_problems(node: NodeTopology) -> tuple[Problem, ...]:
    """Return a problem for pairs joined by fewer links than a bridge has, or than their equals have."""
    if node.switched or is_cube_mesh(node):
        return ()
    pairs = [g for g in islands(node, is_fast) if len(g) == 2]
    counts = {pair: link_count(cell) for pair in pairs if (cell := node.relation(*pair)).startswith("NV")}
    most = max(counts.values(), default=0)
    return tuple(
        Problem(
            name="dead-link",
            message=f"GPU{a}–GPU{b} are joined by {links} NVLinks, which is no full bridge",
            remedy="a link may be down or a bridge badly seated; plan with what is there, or reseat it",
        )
        for (a, b), links in counts.items()
        if links not in BRIDGE_LINKS or links < most
    )


def missing_links(node: NodeTopology) -> tuple[Problem, ...]:
    """Return a problem for every device of a board that has fewer NVLinks than its equals.

    A board is what switches join, eight devices that all reach each other over direct links, or fewer of
    which nearly all pairs have equally many: a part of an uneven one, as half a cube mesh, has none missing.
    """
    links = [device.links or 0 for device in node.devices]
    usual = max(links, default=0)
    if not usual or not (node.switched or _is_board(node)):
        return ()
    return tuple(
        Problem(
            name="dead-link",
            message=f"GPU{index} has {found or 'no'} NVLink{'s' if found != 1 else ''}; others have {usual}",
            remedy="reset it, and check its NVLinks (nvidia-smi nvlink -s); its slowest pair sets the pace",
        )
        for index, found in enumerate(links)
        if found < usual
    )


def _is_board(node: NodeTopology) -> bool:
    count = len(node.devices)
    cells = [node.relation(a, b) for a, b in combinations(range(count), 2)]
    if any(hop_count(cell) for cell in cells) or len(islands(node, is_fast)) > 1:
        return False
    return count == 8 or (count > 2 and 4 * max(map(cells.count, cells)) >= 3 * len(cells))


def _count_links(node: NodeTopology) -> NodeTopology:
    """Return the node with the number of links of every device, where the source did not give it."""
    devices = []
    for device in node.devices:
        cells = [node.relation(device.index, other.index) for other in node.devices if other is not device]
        counts = [link_count(cell) for cell in cells]
        links = max(counts, default=0) if node.switched else sum(counts)
        known = device.links is not None or node.links == "unknown"
        devices.append(device if known else device.model_copy(update={"links": links}))
    return node.model_copy(update={"devices": tuple(devices)})


def switched_board(devices: Sequence[NodeDevice]) -> tuple[int, float] | None:
    """Return the links of a device and bytes per second of one, if these are a board sold with NVSwitches."""
    names = {device.name for device in devices}
    if len(devices) != 8 or len(names) != 1:
        return None
    name = names.pop() or ""
    family, product = short_name(name), name.upper()
    socketed = "SXM" in product or "HBM3" in product or family in {"H200", "B200", "B300"}
    return SWITCHED_BOARDS.get(family) if socketed and "NVL" not in product else None


def _assume_board(node: NodeTopology) -> NodeTopology:
    board = switched_board(node.devices)
    if board is None:
        return node
    links, rate = board
    name = node.devices[0].name
    size = len(node.matrix)
    matrix = tuple(
        tuple(f"NV{links}" if a < 8 and b < 8 and a != b else node.matrix[a][b] for b in range(size))
        for a in range(size)
    )
    devices = [d.model_copy(update={"links": links, "link_bytes_per_second": rate}) for d in node.devices]
    note = f"boards of eight {name} have {links} NVLinks a device to NVSwitches: assumed here too"
    return node.model_copy(
        update={
            "matrix": matrix,
            "devices": tuple(devices),
            "switched": True,
            "links": "assumed",
            "notes": (*node.notes, note),
            "origins": {**node.origins, "matrix": "PCIe from the file; NVLink assumed from the product"},
        }
    )
