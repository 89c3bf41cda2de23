"""Which ranks of a group share a link, under each order of the ranks: orders alike in that are one layout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.layout import RankOrder
from planner.skeletons import Column, Skeletons
from profiles.cluster import ClusterSpec


def distinct_orders(
    cluster: ClusterSpec, orders: tuple[RankOrder, ...], skeletons: Skeletons
) -> NDArray[np.bool_]:
    """[skeletons, orders]: whether an order differs from all before it in which neighbours share a link."""
    s = skeletons
    triples = np.stack([s.tp, s.pp, s.dp], axis=1)
    # Skeletons that differ in their microbatch alone follow each other.
    begins = np.ones(len(triples), dtype=bool)
    begins[1:] = (triples[1:] != triples[:-1]).any(axis=1)
    first = np.flatnonzero(begins)
    keys = [neighbours(cluster, order, triples[first]) for order in orders]
    new = np.ones((len(first), len(keys)), dtype=bool)
    for i, key in enumerate(keys):
        for other in keys[:i]:
            new[:, i] &= (key != other).any(axis=1)
    return np.asarray(new[np.cumsum(begins) - 1])


def neighbours(cluster: ClusterSpec, order: RankOrder, degrees: Column) -> NDArray[np.int32]:
    """Return how many ranks of each axis's group share one run of each link class.

    Two orders with equal rows put equal traffic on equal links, so only one of them is searched.

    Args:
        cluster: gives the spans of the links.
        order: which axis varies fastest.
        degrees: [n, 3], the degrees (tp, pp, dp).

    Returns:
        [n, 3 · links]: −1 for a group of one, 0 for a group that straddles runs unevenly.
    """
    spans = [link.span or cluster.devices for link in cluster.links]
    rows = np.empty((len(degrees), 3, len(spans)), dtype=np.int32)
    stride = np.ones(len(degrees), dtype=np.int32)  # divides in half the time of 64 bits
    for axis in order.split("-"):
        place = ("tp", "pp", "dp").index(axis)
        degree = degrees[:, place].astype(np.int32)
        extent = stride * degree
        for number, span in enumerate(spans):
            even = (span % extent == 0) | ((extent % span == 0) & (span % stride == 0)) | (stride % span == 0)
            inside = np.where(even, np.minimum(degree, np.maximum(1, span // stride)), 0)
            rows[:, place, number] = np.where(degree == 1, -1, inside)
        stride = extent
    return rows.reshape(len(degrees), -1)
