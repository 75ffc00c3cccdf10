"""The regions of a class map as polygons, strip by strip: GDAL's polygons of each strip, joined over their borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foveate.tiff.raster import NODATA
from foveate.types import IntArray, LabelArray

Shapes = NDArray[Any]  # of shapely polygons


class ClassRegion(NamedTuple):
    """Pixels of one class that are connected over their sides.

    Attributes:
        value: class id.
        shape: its valid polygon in pixels (x = column, y = row), corners only; as x and y on paper the outer ring runs
            counterclockwise, on a screen, where rows go down, clockwise.
    """

    value: int
    shape: shapely.Polygon


def regions(strips: Iterable[LabelArray]) -> Iterator[ClassRegion]:
    """The regions of an image, each as soon as no later strip can touch it.

    Memory: the polygons of one strip, and the pieces of the regions that go on below it.

    Args:
        strips: (h, w) ids of all rows of the image, from the first one down; `NODATA` has no region.
    """
    top, above = 0, None
    for ids in strips:
        strip = _read(ids, top)
        bounds = shapely.bounds(strip.shapes).reshape(-1, 4)
        goes_up, goes_down = (bounds[:, 1] == top) & (top > 0), bounds[:, 3] == top + len(ids)
        inside = ~(goes_up | goes_down)
        yield from map(ClassRegion, strip.values[inside].tolist(), shapely.orient_polygons(strip.shapes[inside]))
        complete, above = _joined(above, strip, np.flatnonzero(~inside), goes_down)
        yield from (group.region() for group in complete)
        top += len(ids)
    if above is not None:
        yield from (group.region() for group in above.closed())


class _Group(NamedTuple):
    """What is known of a region that may go on; `shapes` have the same corners where they touch each other."""

    value: int
    shapes: list[shapely.Polygon]

    def region(self) -> ClassRegion:
        """All of it, where it is complete."""
        whole = self.shapes[0] if len(self.shapes) == 1 else shapely.coverage_union_all(self.shapes)
        return ClassRegion(self.value, shapely.orient_polygons(_corners_only(whole)))


class _Strip(NamedTuple):
    """The n polygons of a strip: class ids (n,), shapes (n,), and which one its first and last pixels belong to, (w,).

    `first` and `last` are -1 where a pixel has none; `top` and `bottom` are the rows of its borders.
    """

    values: LabelArray
    shapes: Shapes
    first: IntArray
    last: IntArray
    top: int
    bottom: int


class _Border(NamedTuple):
    """The lower border of the strips so far.

    Attributes:
        group: (w,) index into `groups` of each pixel of the last row, -1 where there is none.
        groups: the regions that reach it, without their pieces in the last strip.
        pieces: (m,) polygons of the last strip that reach it.
        owner: (m,) index into `groups` of each.
    """

    group: IntArray
    groups: list[_Group]
    pieces: Shapes
    owner: IntArray

    def closed(self) -> list[_Group]:
        """The groups with the pieces of the last strip."""
        for piece, owner in zip(self.pieces, self.owner.tolist(), strict=True):
            self.groups[owner].shapes.append(piece)
        return self.groups


def _joined(
    above: _Border | None, strip: _Strip, edge: IntArray, goes_down: NDArray[np.bool_]
) -> tuple[list[_Group], _Border]:
    """The regions that are complete with a strip, and the lower border.

    Args:
        above: the upper border; None of the first strip.
        strip: the strip.
        edge: numbers of its polygons that touch a border.
        goes_down: (n,) whether a polygon touches the lower one.
    """
    shapes = strip.shapes
    groups: list[_Group] = []
    pairs = np.empty((0, 2), np.int64)
    if above is not None:
        columns = np.union1d(_changes(above.group), _changes(strip.first))
        groups = above._replace(pieces=_cut(above.pieces, strip.top, columns)).closed()
        shapes = shapes.copy()
        shapes[edge] = _cut(shapes[edge], strip.top, columns)
        pairs = _touching(above, strip)
    known = len(groups)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], known + pairs[:, 1])), [known + len(shapes)] * 2)
    _, number = connected_components(graph, directed=False)
    joined: dict[int, _Group] = {}
    for i, group in zip(number[:known].tolist(), groups, strict=True):
        joined.setdefault(i, _Group(group.value, [])).shapes.extend(group.shapes)
    for i in edge.tolist():
        group = joined.setdefault(int(number[known + i]), _Group(int(strip.values[i]), []))
        if not goes_down[i]:
            group.shapes.append(shapes[i])
    down = np.flatnonzero(goes_down)
    going_on, owner = np.unique(number[known + down], return_inverse=True)
    of_pixel = np.full_like(strip.last, -1)
    there = strip.last >= 0
    of_pixel[there] = np.searchsorted(going_on, number[known + strip.last[there]])
    border = _Border(of_pixel, [joined.pop(i) for i in going_on.tolist()], shapes[down], owner)
    return list(joined.values()), border


def _touching(above: _Border, strip: _Strip) -> IntArray:
    """(k, 2) index of a group above, number of a polygon of the strip: those of one class that share a side."""
    values = np.array([group.value for group in above.groups] + [NODATA])
    same = (values[above.group] == np.append(strip.values, NODATA)[strip.first]) & (strip.first >= 0)
    return np.unique(np.stack([above.group, strip.first], axis=1)[same], axis=0)


def _read(ids: LabelArray, top: int) -> _Strip:
    """The polygons of a strip whose first row is `top`."""
    number = np.zeros(ids.shape, np.int32)
    values: list[int] = []
    for value in np.unique(ids[ids != NODATA]).tolist():
        mask = ids == value
        labels, found = ndimage.label(mask)
        number[mask] = labels[mask] + len(values)
        values += [value] * found
    place = Affine.translation(0, top)
    found = rasterio.features.shapes(number, mask=number > 0, connectivity=4, transform=place)
    order, shapes = _polygons(found)
    sorted_shapes = np.empty_like(shapes)
    sorted_shapes[order - 1] = shapes
    first, last = number[0].astype(np.int64) - 1, number[-1].astype(np.int64) - 1
    return _Strip(np.array(values, np.uint8), sorted_shapes, first, last, top, top + len(ids))


def _polygons(found: Iterable[tuple[Any, float]]) -> tuple[IntArray, Shapes]:
    """Values (n,) and valid polygons (n,) from what `rasterio.features.shapes` gives."""
    values, rings, polygons, points = [], [0], [0], []
    for shape, value in found:
        values.append(int(value))
        for ring in shape["coordinates"]:
            points.append(ring)
            rings.append(rings[-1] + len(ring))
        polygons.append(len(points))
    coordinates = np.array(list(chain.from_iterable(points)), float).reshape(-1, 2)
    shapes: Shapes = _from_rings(coordinates, np.array(rings), np.array(polygons))
    # GDAL follows a border that touches itself as one ring; a valid polygon has a hole there.
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure")
    return np.array(values, np.int64), shapes


def _cut(shapes: Shapes, row: int, columns: IntArray) -> Shapes:
    """Polygons with a point at each of these columns of a row where they have a side there."""
    if not len(shapes):
        return shapes
    _, points, (rings, polygons) = shapely.to_ragged_array(shapes)
    along = (points[:-1, 1] == row) & (points[1:, 1] == row)
    along[rings[1:-1] - 1] = False  # from the end of a ring to the start of the next
    start, end = points[:-1, 0], points[1:, 0]
    low = np.searchsorted(columns, np.minimum(start, end), side="right")
    high = np.searchsorted(columns, np.maximum(start, end), side="left")
    added = np.where(along, np.maximum(high - low, 0), 0)
    if not added.any():
        return shapes
    side = np.repeat(np.arange(len(added)), added)
    step = np.arange(len(side)) - np.repeat(np.cumsum(added) - added, added)
    between = np.where(start < end, low, high - 1)[side] + np.where(start < end, 1, -1)[side] * step
    new = np.stack([columns[between].astype(float), np.full(len(side), float(row))], axis=1)
    moved = rings + np.append(0, np.cumsum(np.append(added, 0)))[rings]
    return _from_rings(np.insert(points, side + 1, new, axis=0), moved, polygons)


def _from_rings(points: NDArray[np.float64], rings: IntArray, polygons: IntArray) -> Shapes:
    shapes: Shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (rings, polygons))
    return shapes


def _changes(values: IntArray) -> IntArray:
    """The columns between pixels that differ."""
    return np.flatnonzero(values[1:] != values[:-1]) + 1


def _corners_only(shape: shapely.Polygon) -> shapely.Polygon:
    """A polygon of horizontal and vertical sides without the points between two corners."""
    return shapely.Polygon(_turns(shape.exterior), [_turns(ring) for ring in shape.interiors])


def _turns(ring: Any) -> NDArray[np.float64]:
    points = shapely.get_coordinates(ring)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns: NDArray[np.float64] = points[(before[:, 0] == 0) != (after[:, 0] == 0)]
    return turns
