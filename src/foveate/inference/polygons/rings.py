"""From the borders of a region to a valid polygon: one ring around it, and one around each of its holes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from foveate.inference.polygons.order import in_order
from foveate.inference.polygons.sweep import Region
from foveate.types import IntArray


class Polygon(NamedTuple):
    """A region's polygon.

    Attributes:
        value: class id.
        area: pixels, without the holes.
        exterior: (n, 2) columns and rows of the corners; the first is not repeated. As x and y on paper it runs
            counterclockwise, on a screen, where rows go down, clockwise.
        holes: the same of each hole, the other way round. Rings touch each other and themselves in single points at
            most, and themselves not even there.
    """

    value: int
    area: int
    exterior: IntArray
    holes: list[IntArray]


def polygon_of(region: Region) -> Polygon:
    """The polygon of a region."""
    rings = [part for ring in region.rings for part in without_touching(ring)]
    areas = [signed_area(ring) for ring in rings]
    exterior = rings[int(np.argmax(areas))]
    holes = [ring for ring, area in zip(rings, areas, strict=True) if area < 0]
    return Polygon(region.value, sum(areas), exterior, holes)


def signed_area(ring: IntArray) -> int:
    """Pixels inside a ring of horizontal and vertical sides, negative where the ring is that of a hole."""
    cols, rows = ring.T
    return int(np.dot(cols, np.roll(rows, -1) - rows))


def without_touching(ring: IntArray) -> list[IntArray]:
    """Rings that do not touch themselves, from one that may pass a vertex twice, at two corners of its region.

    At such a vertex the walk turns to the other corner. As the region is connected over sides, what lies between the
    two corners is separate from what lies beyond: the parts are rings of the outside and of holes.
    """
    keys = ring[:, 0] << 32 | ring[:, 1]
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if len(again) == 0:
        return [ring]
    one, other = order[again], order[again + 1]
    following = np.roll(np.arange(len(ring)), -1)
    following[one], following[other] = following[other], following[one]
    walk, starts = in_order(following)
    return [ring[walk[a:b]] for a, b in pairwise(starts)]
