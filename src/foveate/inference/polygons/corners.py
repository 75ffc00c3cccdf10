"""The corners of the borders between regions of a strip of class ids.

A region is a set of pixels of one id that are connected over their sides (not over corners). Its border is walked with
the region on the right hand: over a pixel's upper side to the east, over its right side to the south, and so on. Where
two pixels of a region touch at a corner only, the walk stays with its pixel; so the way on at a vertex depends on the
four pixels around it and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foveate.types import IntArray, LabelArray

OUTSIDE = 255  # the id that has no region: outside the raster, and whatever is left out
EAST, SOUTH, WEST, NORTH = range(4)
# The pixels around a vertex are numbered so that a walk around pixel q comes there in direction q - 1 and leaves in
# direction q where only q is of the region (a convex corner), and the other way round where all but its opposite are.
LOWER_RIGHT, LOWER_LEFT, UPPER_LEFT, UPPER_RIGHT = range(4)


class Vertices(NamedTuple):
    """The vertices of a strip whose four pixels are not all equal, row by row.

    Attributes:
        row, col: (n,) of the vertex, in the strip; the vertex (i, j) is the upper left corner of the pixel (i, j).
        around: (4, n) ids of the pixels lower right, lower left, upper left, upper right of it.
    """

    row: IntArray
    col: IntArray
    around: LabelArray


class Corners(NamedTuple):
    """Where borders turn, row by row; up to four at a vertex, one a pixel.

    Attributes:
        vertex: (n,) index into the vertices.
        value: (n,) id of the region.
        pixel: (n,) the pixel of the region at whose corner the border turns, 0 to 3 as in `Vertices.around`.
        into, out: (n,) directions in which the border comes and goes.
    """

    vertex: IntArray
    value: LabelArray
    pixel: IntArray
    into: IntArray
    out: IntArray


def padded(strip: LabelArray, above: LabelArray) -> LabelArray:
    """A strip (h, w) with the row above it, and a column of `OUTSIDE` on each side: (h + 1, w + 2)."""
    height, width = strip.shape
    result = np.full((height + 1, width + 2), OUTSIDE, np.uint8)
    result[0, 1:-1], result[1:, 1:-1] = above, strip
    return result


def find_vertices(pixels: LabelArray) -> Vertices:
    """The vertices on the upper borders of the strip's rows, of a `padded` strip."""
    beside = pixels[:, 1:] != pixels[:, :-1]
    where = pixels[1:, :-1] != pixels[:-1, :-1]
    where |= beside[1:]
    where |= beside[:-1]
    flat = np.flatnonzero(where)
    row, col = np.divmod(flat, where.shape[1])
    around = [pixels[row + 1, col + 1], pixels[row + 1, col], pixels[row, col], pixels[row, col + 1]]
    return Vertices(row, col, np.stack(around))


def find_corners(vertices: Vertices) -> Corners:
    """The corners at these vertices."""
    around = vertices.around
    after, opposite, before = (np.roll(around, -k, axis=0) for k in (1, 2, 3))
    convex = (after != around) & (before != around)
    concave = (after == around) & (before == around) & (opposite != around)
    present = (convex | concave) & (around != OUTSIDE)
    vertex, pixel = np.nonzero(present.T)
    turns, previous = convex[pixel, vertex], (pixel - 1) % 4
    into, out = np.where(turns, previous, pixel), np.where(turns, pixel, previous)
    return Corners(vertex, around[pixel, vertex], pixel, into, out)
