"""The regions of a class map as polygons, strip by strip, joined over their borders; with right angles if asked."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import shapely
from scipy import ndimage, sparse
from shapely.affinity import rotate

from foveate.geometry import Array, BoolArray, DoubleArray, IntArray, LabelArray
from foveate.tiff.raster import NODATA

# A side this far from both directions, in degrees, stays oblique.
_OBLIQUE = 25.0
# A regular outline that differs from the region by more than this share of its area is not taken.
_MOST_CHANGED = 0.15
_LEAST_TOLERANCE = 1.5  # pixels: the steps of a border that is drawn in pixels
_Line = tuple[DoubleArray, DoubleArray]  # a point and a direction
Shapes = Array  # of shapely polygons


class ClassRegion(NamedTuple):
    """Pixels of one class that are connected over their sides.

    The shape is a valid polygon in pixels (x = column, y = row), corners only; as x and y on paper the outer ring runs
    counterclockwise, on a screen, where rows go down, clockwise.
    """

    value: int  # class id
    shape: shapely.Polygon


def regions(strips: Iterable[LabelArray]) -> Iterator[ClassRegion]:
    """The regions of an image, from the ids (h, w) of all its rows, each as soon as no later strip can touch it.

    Memory: the polygons of one strip, and the pieces of the regions that go on below it. `NODATA` has no region.
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
        corners = shapely.Polygon(_turns(whole.exterior), [_turns(ring) for ring in whole.interiors])
        return ClassRegion(self.value, shapely.orient_polygons(corners))


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
    """The lower border of the strips so far."""

    group: IntArray  # (w,) index into `groups` of each pixel of the last row, -1 where there is none
    groups: list[_Group]  # the regions that reach it, without their pieces in the last strip
    pieces: Shapes  # (m,) polygons of the last strip that reach it
    owner: IntArray  # (m,) index into `groups` of each

    def closed(self) -> list[_Group]:
        """The groups with the pieces of the last strip."""
        for piece, owner in zip(self.pieces, self.owner.tolist(), strict=True):
            self.groups[owner].shapes.append(piece)
        return self.groups


def _joined(above: _Border | None, strip: _Strip, edge: IntArray, goes_down: BoolArray) -> tuple[list[_Group], _Border]:
    """The regions that are complete with a strip, and the lower border.

    The upper border is None of the first strip; `edge` are the numbers of its polygons that touch a border, and
    `goes_down` (n,) says which touch the lower one.
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
    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], known + pairs[:, 1])), [known + len(shapes)] * 2)
    _, number = sparse.csgraph.connected_components(graph, directed=False)
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
    place = rasterio.Affine.translation(0, top)
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
            points.extend(ring)
            rings.append(rings[-1] + len(ring))
        polygons.append(len(rings) - 1)
    coordinates = np.array(points, float).reshape(-1, 2)
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


def _from_rings(points: DoubleArray, rings: IntArray, polygons: IntArray) -> Shapes:
    shapes: Shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (rings, polygons))
    return shapes


def _changes(values: IntArray) -> IntArray:
    """The columns between pixels that differ."""
    return np.flatnonzero(values[1:] != values[:-1]) + 1


def _turns(ring: Any) -> DoubleArray:
    """The corners of a ring of horizontal and vertical sides, without the points between them."""
    points = shapely.get_coordinates(ring)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns: DoubleArray = points[(before[:, 0] == 0) != (after[:, 0] == 0)]
    return turns


def regularised(polygon: shapely.Polygon, tolerance: float = 0.0) -> shapely.Polygon:
    """The polygon with right angles where its border is near them; what has none comes back simplified.

    Its border moves by the tolerance in pixels, 1.5 at least. Then sides within 25 degrees of its main direction, or of
    that at a right angle to it, are brought to it, and those that follow each other become one. The others stay as they
    are. The main direction is that in which most of the border runs.
    """
    tolerance = max(tolerance, _LEAST_TOLERANCE)
    coarse = polygon.simplify(tolerance, preserve_topology=True)
    angle, centre = _main_direction(coarse), polygon.centroid
    turned = rotate(coarse, -angle, origin=centre)
    rings = [_squared(ring, tolerance) for ring in (turned.exterior, *turned.interiors)]
    if any(ring is None for ring in rings):
        return coarse
    regular = rotate(shapely.Polygon(rings[0], rings[1:]), angle, origin=centre)
    changed = regular.symmetric_difference(polygon).area if regular.is_valid else np.inf
    return regular if changed <= _MOST_CHANGED * polygon.area else coarse


def _main_direction(polygon: shapely.Polygon) -> float:
    """Degrees from 0 to 90 in which most of the border runs: the mean of the sides' angles, four times, by length."""
    steps = np.diff(np.asarray(polygon.exterior.coords)[:, :2], axis=0)
    lengths, angles = np.hypot(*steps.T), np.arctan2(steps[:, 1], steps[:, 0])
    # Twice the weight of long sides: short ones are steps of pixels.
    mean = np.angle((lengths**2 * np.exp(4j * angles)).sum()) / 4
    return float(np.degrees(mean) % 90)


def _squared(ring: Any, tolerance: float) -> list[tuple[float, float]] | None:
    """The corners of a ring whose sides near the axes are brought to them; None where too few are left."""
    points = shapely.get_coordinates(ring)[:-1]
    sides = np.roll(points, -1, axis=0) - points
    angles = np.degrees(np.arctan2(abs(sides[:, 1]), abs(sides[:, 0])))
    kinds = np.select([angles <= _OBLIQUE, angles >= 90 - _OBLIQUE], ["level", "upright"], "oblique")
    # What is as short as the steps of pixels is no side: a corner that they cut, or a step in a side.
    kept = np.flatnonzero(np.hypot(*sides.T) >= np.where(kinds == "oblique", 3, 2) * tolerance)
    # Sides that follow each other in one direction are one, around the ring.
    first = np.flatnonzero((kinds[kept] != np.roll(kinds[kept], 1)) | (kinds[kept] == "oblique"))
    if len(first) < 3:
        return None
    groups = np.split(np.roll(kept, -first[0]), first[1:] - first[0])
    lines = [_line(points, sides, group, kinds[group[0]]) for group in groups]
    corners = []
    for k, (line, group) in enumerate(zip(lines, groups, strict=True)):
        met = _crossing(lines[k - 1], line)
        corner = points[group[0]] if met is None else met
        corners.append((float(corner[0]), float(corner[1])))
    return corners


def _line(points: DoubleArray, sides: DoubleArray, group: IntArray, kind: str) -> _Line:
    if kind == "oblique":
        return points[group[0]], sides[group[0]]
    middles = points[group] + sides[group] / 2
    mean = np.average(middles, axis=0, weights=np.hypot(*sides[group].T))
    return mean, np.array([1.0, 0.0] if kind == "level" else [0.0, 1.0])


def _crossing(first: _Line, second: _Line) -> DoubleArray | None:
    """Where two lines meet; None where they are all but parallel."""
    (p, u), (q, v) = first, second
    cross = u[0] * v[1] - u[1] * v[0]
    if abs(cross) < 0.2 * np.hypot(*u) * np.hypot(*v):
        return None
    crossing: DoubleArray = p + ((q - p)[0] * v[1] - (q - p)[1] * v[0]) / cross * u
    return crossing
