"""Simpler polygons: fewer corners, within a tolerance."""

from __future__ import annotations

import numpy as np

from foveate.inference.polygons.rings import Polygon


def simplified(polygon: Polygon, tolerance: float) -> Polygon:
    """A valid polygon with fewer corners; the area is that of the pixels still.

    Each polygon is simplified for itself: it keeps its holes and does not cross itself, but neighbours may overlap or
    part by up to twice the tolerance.

    Args:
        polygon: of a region.
        tolerance: farthest that a border may move, pixels.
    """
    import shapely  # noqa: PLC0415 - an extra, see `check_polygons`

    shape = shapely.Polygon(polygon.exterior, polygon.holes).simplify(tolerance, preserve_topology=True)
    if not isinstance(shape, shapely.Polygon) or not shape.is_valid:
        return polygon
    shape = shapely.orient_polygons(shape)
    rings = [np.asarray(ring.coords)[:-1] for ring in (shape.exterior, *shape.interiors)]
    return polygon._replace(exterior=rings[0], holes=rings[1:])
