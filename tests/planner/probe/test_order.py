"""Islands, orders, rings and the cube mesh, against brute force over small graphs."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.probe.order import has_ring, is_cube_mesh, is_fast, islands, link_count, neighbour_order, runs
from profiles.topology import NodeDevice, NodeTopology

CELLS = ["NV1", "NV2", "NV4", "PIX", "PHB", "NODE", "SYS"]


def node_of(count, cell):
    matrix = tuple(
        tuple("X" if a == b else cell(min(a, b), max(a, b)) for b in range(count)) for a in range(count)
    )
    return NodeTopology(devices=tuple(NodeDevice(index=i) for i in range(count)), matrix=matrix)


@st.composite
def nodes(draw, most=6):
    count = draw(st.integers(1, most))
    cells = {pair: draw(st.sampled_from(CELLS)) for pair in combinations(range(count), 2)}
    return node_of(count, lambda a, b: cells[a, b])


@settings(deadline=None)
@given(node=nodes())
def test_islands_are_the_connected_parts(node):
    """Against repeated squaring of the reachability relation."""
    count = len(node.devices)
    reach = [[a == b or is_fast(node.relation(a, b)) for b in range(count)] for a in range(count)]
    for _ in range(count):
        reach = [
            [any(reach[a][k] and reach[k][b] for k in range(count)) for b in range(count)]
            for a in range(count)
        ]
    expected = {tuple(b for b in range(count) if reach[a][b]) for a in range(count)}
    assert set(islands(node, is_fast)) == expected


@settings(deadline=None)
@given(node=nodes())
def test_rings_against_brute_force(node):
    count = len(node.devices)
    for size in range(2, count + 1):
        group = tuple(range(size))
        found = any(
            all(is_fast(node.relation(path[i], path[(i + 1) % size])) for i in range(size))
            for path in permutations(group)
        )
        assert has_ring(node, group) == found


@settings(deadline=None)
@given(node=nodes())
def test_order_is_a_permutation_that_keeps_islands_together(node):
    order = neighbour_order(node) or tuple(range(len(node.devices)))
    assert sorted(order) == list(range(len(node.devices)))
    for island in islands(node, is_fast):
        places = sorted(order.index(device) for device in island)
        assert places == list(range(places[0], places[0] + len(island)))


@given(order=st.permutations(range(8)))
def test_cube_mesh_is_known_under_any_numbering(order, cube_mesh_links):
    place = {old: new for new, old in enumerate(order)}
    links = {tuple(sorted((place[a], place[b]))): n for (a, b), n in cube_mesh_links.items()}
    node = node_of(8, lambda a, b: f"NV{links[a, b]}" if (a, b) in links else "SYS")
    assert is_cube_mesh(node)


@pytest.fixture(scope="module")
def cube_mesh_links():
    inside = [(a, b) for half in (range(4), range(4, 8)) for a, b in combinations(half, 2)]
    return {**dict.fromkeys(inside, 1), **{(i, i + 4): 2 for i in range(4)}}


def test_other_graphs_of_degree_four_are_no_cube_mesh():
    """Each device joined to its two neighbours on either side of a ring of eight."""
    assert not is_cube_mesh(node_of(8, lambda a, b: "NV1" if min(b - a, 8 - b + a) <= 2 else "SYS"))


def test_interleaved_sockets_are_put_in_order():
    node = node_of(4, lambda a, b: "PHB" if a % 2 == b % 2 else "SYS")
    assert neighbour_order(node) == (0, 2, 1, 3)


@pytest.mark.parametrize(
    ("cell", "count"),
    [("NV12", 12), ("XGMI", 1), ("XGMI4", 4), ("HOP2", 0), ("PIX", 0), ("NV", 1), ("?", 0), ("X", 0)],
)
def test_links_of_a_cell(cell, count):
    assert link_count(cell) == count


def test_runs():
    assert runs((3, 1, 0, 2), 2) == [(3, 1), (0, 2)]
