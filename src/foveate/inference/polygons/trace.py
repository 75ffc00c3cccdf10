"""Borders of one strip: its corners joined to chains, closed ones and ones that go on in the strips above or below."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foveate.inference.polygons.corners import (
    EAST,
    LOWER_LEFT,
    LOWER_RIGHT,
    NORTH,
    OUTSIDE,
    SOUTH,
    WEST,
    Corners,
    Vertices,
    find_corners,
    find_vertices,
    padded,
)
from foveate.inference.polygons.order import components, in_order
from foveate.types import IntArray, LabelArray

_NONE = -1  # the direction into the first node of a chain, and out of its last


class Chains(NamedTuple):
    """The chains of a strip; those that are not rings begin and end where they cross the strip's upper or lower border.

    Crossings are numbered along the upper border, then along the lower one. Those of a lower border have the same order
    as those of the upper border of the next strip.

    Attributes:
        points: (n, 2) columns and rows of the corners, chain after chain in the order of the walk.
        starts: (k + 1,) where the chains start in `points`.
        value: (k,) ids of their regions.
        region: (k,) number of the region in this strip; several may turn out to be one further below.
        first, last: (k,) crossing at which the chain begins and ends; -1 of a ring.
        upper, lower: number of crossings of each border.
    """

    points: IntArray
    starts: IntArray
    value: LabelArray
    region: IntArray
    first: IntArray
    last: IntArray
    upper: int
    lower: int


class _Nodes(NamedTuple):
    """The corners, then the crossings of both borders; `by_column` sorts them by column and then by row."""

    col: IntArray
    row: IntArray
    value: LabelArray
    into: IntArray
    out: IntArray
    by_column: IntArray


def trace(strip: LabelArray, above: LabelArray, top: int) -> Chains:
    """The borders in a strip, without the lower borders of its last row, which belong to the next strip.

    Args:
        strip: (h, w) ids; `OUTSIDE` has no region.
        above: (w,) the row above it, `OUTSIDE` above the first.
        top: row of the strip's first row.
    """
    pixels = padded(strip, above)
    vertices = find_vertices(pixels)
    corners = find_corners(vertices)
    upper, lower = _crossings(pixels[0], -1, SOUTH), _crossings(pixels[-1], len(strip), NORTH)
    nodes = _nodes(vertices, corners, upper, lower)
    following = _following(nodes)
    left, right = _across_runs(vertices, corners, nodes)
    count = len(following)
    region = components(count, np.append(np.arange(count), left), np.append(following, right))
    return _chains(nodes, following, region, top, len(upper.value), len(lower.value))


class _Crossings(NamedTuple):
    col: IntArray
    row: IntArray
    value: LabelArray
    into: IntArray
    out: IntArray


def _crossings(row: LabelArray, place: int, leaving: int) -> _Crossings:
    """Where borders cross a strip's border: first those to the south, then those to the north.

    Args:
        row: the padded pixels above that border.
        place: row of the nodes.
        leaving: direction of those that come into the strip there.
    """
    side = np.flatnonzero(row[1:] != row[:-1])
    south, north = side[row[side] != OUTSIDE], side[row[side + 1] != OUTSIDE]
    direction = np.repeat([SOUTH, NORTH], [len(south), len(north)])
    return _Crossings(
        np.append(south, north),
        np.full(len(direction), place),
        np.append(row[south], row[north + 1]),
        np.where(direction == leaving, _NONE, direction),
        np.where(direction == leaving, direction, _NONE),
    )


def _nodes(vertices: Vertices, corners: Corners, upper: _Crossings, lower: _Crossings) -> _Nodes:
    col = np.concatenate([vertices.col[corners.vertex], upper.col, lower.col])
    row = np.concatenate([vertices.row[corners.vertex], upper.row, lower.row])
    value = np.concatenate([corners.value, upper.value, lower.value])
    into = np.concatenate([corners.into, upper.into, lower.into])
    out = np.concatenate([corners.out, upper.out, lower.out])
    return _Nodes(col, row, value, into, out, np.lexsort((row, col)))


def _following(nodes: _Nodes) -> IntArray:
    """The node after each.

    Segments of one direction that lie on one line do not overlap, so along the line the k-th start belongs to the k-th
    end: sorted by line, all segments of a direction are found at once.
    """
    following = np.full(len(nodes.col), -1, np.int64)
    by_row = np.arange(len(nodes.col))  # corners are; crossings have no horizontal segments
    for direction, order in ((EAST, by_row), (WEST, by_row), (SOUTH, nodes.by_column), (NORTH, nodes.by_column)):
        leaving, arriving = order[nodes.out[order] == direction], order[nodes.into[order] == direction]
        following[leaving] = arriving
    return following


def _across_runs(vertices: Vertices, corners: Corners, nodes: _Nodes) -> tuple[IntArray, IntArray]:
    """Pairs of nodes whose borders are of one region, such that every hole is tied to what is around it.

    A hole's leftmost side begins in a corner from west to south. In the row below it the run of pixels on the left of
    that side begins at a border further left: of the outside of the same region, or of a hole that reaches further
    left, which is tied itself.
    """
    found = np.flatnonzero((corners.into == WEST) & (corners.out == SOUTH))
    has_side = vertices.around[LOWER_LEFT] != vertices.around[LOWER_RIGHT]
    latest = np.maximum.accumulate(np.where(has_side, np.arange(len(has_side)), -1))
    run = latest[corners.vertex[found] - 1]  # the vertex above the upper left corner of the run
    upward = nodes.by_column[nodes.into[nodes.by_column] == NORTH]
    height = int(nodes.row.max(initial=0)) + 2
    keys = nodes.col[upward] * height + nodes.row[upward]
    # The border that passes there ends at the nearest corner above, or turns right there.
    place = np.searchsorted(keys, vertices.col[run] * height + vertices.row[run], side="right") - 1
    return found, upward[place]


def _chains(nodes: _Nodes, following: IntArray, region: IntArray, top: int, upper: int, lower: int) -> Chains:
    order, starts = in_order(following)
    corners = len(order) - upper - lower
    is_corner = order < corners
    points = np.stack([nodes.col[order], nodes.row[order] + top], axis=1)[is_corner]
    head, tail = order[starts[:-1]], order[starts[1:] - 1]
    return Chains(
        points,
        np.append(0, np.cumsum(is_corner))[starts],
        nodes.value[head],
        region[head],
        np.where(head < corners, -1, head - corners),
        np.where(head < corners, -1, tail - corners),
        upper,
        lower,
    )
