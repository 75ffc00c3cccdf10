"""Put the nodes of chains and rings into the order in which they are walked."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from foveate.types import IntArray


def in_order(following: IntArray) -> tuple[IntArray, IntArray]:
    """The nodes of every chain after each other.

    A walk from node to node would be a Python loop over all corners of an image. Instead the end of each chain is tied
    to the start of the next, so that one walk of a compiled graph search passes them all.

    Args:
        following: (n,) the node after each; -1 at the end of a chain. A ring has no end and starts anywhere.

    Returns:
        (n,) nodes, and (k + 1,) where the chains start among them; those with an end start at their first node.
    """
    count = len(following)
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    chain = components(count, np.arange(count), following)
    first, last = _ends(following, chain)
    tied = following.copy()
    tied[last] = np.append(first[1:], last[-1])
    graph = csr_array((np.ones(count, np.int8), tied, np.arange(count + 1)), shape=(count, count))
    order = breadth_first_order(graph, first[0], return_predecessors=False)
    return order.astype(np.int64), np.append(0, np.cumsum(np.bincount(chain)))


def components(count: int, left: IntArray, right: IntArray) -> IntArray:
    """(count,) the component of each node, numbered from 0; a pair with a -1 on the right joins nothing."""
    joined = right >= 0
    pairs = (left[joined], right[joined])
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(count, count))
    label: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return label


def _ends(following: IntArray, chain: IntArray) -> tuple[IntArray, IntArray]:
    """The first and last node of every chain; rings are cut before the node of the lowest number."""
    preceding = np.full(len(following), -1, np.int64)
    linked = np.flatnonzero(following >= 0)
    preceding[following[linked]] = linked
    first = np.unique(chain, return_index=True)[1]
    starts, stops = np.flatnonzero(preceding < 0), np.flatnonzero(following < 0)
    first[chain[starts]] = starts
    last = preceding[first]
    last[chain[stops]] = stops
    return first, last
