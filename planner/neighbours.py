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
    # Skeletons that differ in their microbatch alone follow each other. The short axis comes first, here and
    # below: numpy reduces over a short last axis ten times as slowly.
    degrees = np.stack([skeletons.tp, skeletons.pp, skeletons.dp])
    begins = np.ones(len(skeletons), dtype=bool)
    begins[1:] = (degrees[:, 1:] != degrees[:, :-1]).any(axis=0)
    some = degrees[:, begins]
    keys = [neighbours(cluster, order, some) for order in orders]
    new = np.ones((len(keys), some.shape[1]), dtype=bool)
    for i, key in enumerate(keys):
        for other in keys[:i]:
            new[i] &= (key != other).any(axis=0)
    return np.asarray(new[:, np.cumsum(begins) - 1].T)


def neighbours(cluster: ClusterSpec, order: RankOrder, degrees: Column) -> NDArray[np.int32]:
    """Return how many ranks of each axis's group share one run of each link class.

    Two orders with equal rows put equal traffic on equal links, so only one of them is searched.

    Args:
        cluster: gives the spans of the links.
        order: which axis varies fastest.
        degrees: [3, n], the degrees (tp, pp, dp).

    Returns:
        [3 · links, n]: −1 for a group of one, 0 for a group that straddles runs unevenly.
    """
    spans = [link.span or cluster.devices for link in cluster.links]
    rows = np.empty((3, len(spans), degrees.shape[1]), dtype=np.int32)
    stride = np.ones(degrees.shape[1], dtype=np.int32)  # divides in half the time of 64 bits
    for axis in order.split("-"):
        place = ("tp", "pp", "dp").index(axis)
        degree = degrees[place].astype(np.int32)
        extent = stride * degree
        for number, span in enumerate(spans):
            inside = np.where(span % extent == 0, degree, 0)
            some = np.flatnonzero(inside == 0)  # most groups lie within a run
            wide, step = extent[some], stride[some]
            even = ((wide % span == 0) & (span % step == 0)) | (step % span == 0)
            inside[some] = even * np.minimum(degree[some], np.maximum(1, span // step))
            rows[place, number] = np.where(degree == 1, -1, inside)
        stride = extent
    return rows.reshape(-1, degrees.shape[1])
