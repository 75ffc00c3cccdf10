"""Write the polygons of a class map of any size, in bounded memory; with right angles, as buildings have, if asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import rotate

from foveate.errors import ConfigError
from foveate.files import written
from foveate.geometry import Georeference
from foveate.tiff.raster import NODATA
from foveate.types import LabelArray
from foveate.writers import PolygonsConfig
from foveate.writers.class_map import ClassMap, open_class_maps
from foveate.writers.geojson import FOOTER, area_unit, feature, header, place_of
from foveate.writers.regions import ClassRegion, regions

# A side this far from both directions, in degrees, stays oblique.
_OBLIQUE = 25.0
# A regular outline that differs from the region by more than this share of its area is not taken.
_MOST_CHANGED = 0.15
_LEAST_TOLERANCE = 1.5  # pixels: the steps of a border that is drawn in pixels
_Line = tuple[NDArray[np.float64], NDArray[np.float64]]  # a point and a direction
# Traced at once: where every pixel differs from its neighbours a polygon takes about a kilobyte.
_SIDES_AT_ONCE = 2**20
_SHOWN = 20
Progress = Callable[[float], None]


def regularised(polygon: shapely.Polygon, tolerance: float = 0.0) -> shapely.Polygon:
    """The polygon with right angles where its border is near them; what has none comes back simplified.

    Sides within 25 degrees of the polygon's main direction, or of that at a right angle to it, are brought to it, and
    those that follow each other become one. The others stay as they are. The main direction is that in which most of
    the border runs.

    Args:
        polygon: in pixels.
        tolerance: farthest that a border may move before its sides are turned, pixels; 1.5 at least.
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
    points = np.asarray(ring.coords)[:-1, :2]
    sides = np.roll(points, -1, axis=0) - points
    kinds = [_kind(side) for side in sides]
    # What is as short as the steps of pixels is no side: a corner that they cut, or a step in a side.
    least = [(3 if kind == "oblique" else 2) * tolerance for kind in kinds]
    kept = [i for i, side in enumerate(sides) if np.hypot(*side) >= least[i]]
    groups = _runs(kept, kinds)
    if len(groups) < 3:
        return None
    lines = [_line(points, sides, group, kinds[group[0]]) for group in groups]
    corners = []
    for k, (line, group) in enumerate(zip(lines, groups, strict=True)):
        met = _crossing(lines[k - 1], line)
        corner = points[group[0]] if met is None else met
        corners.append((float(corner[0]), float(corner[1])))
    return corners


def _kind(side: NDArray[np.float64]) -> str:
    angle = np.degrees(np.arctan2(abs(side[1]), abs(side[0])))
    return "level" if angle <= _OBLIQUE else "upright" if angle >= 90 - _OBLIQUE else "oblique"


def _runs(kept: list[int], kinds: list[str]) -> list[list[int]]:
    """Sides that follow each other in one direction, as one; around the ring."""
    groups: list[list[int]] = []
    for i in kept:
        if groups and kinds[i] != "oblique" and kinds[groups[-1][-1]] == kinds[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    if len(groups) > 1 and kinds[groups[0][0]] == kinds[groups[-1][-1]] != "oblique":
        groups[0] = groups.pop() + groups[0]
    return groups


def _line(points: NDArray[np.float64], sides: NDArray[np.float64], group: list[int], kind: str) -> _Line:
    if kind == "oblique":
        return points[group[0]], sides[group[0]]
    middles = points[group] + sides[group] / 2
    mean = np.average(middles, axis=0, weights=np.hypot(*sides[group].T))
    return mean, np.array([1.0, 0.0] if kind == "level" else [0.0, 1.0])


def _crossing(first: _Line, second: _Line) -> NDArray[np.float64] | None:
    """Where two lines meet; None where they are all but parallel."""
    (p, u), (q, v) = first, second
    cross = u[0] * v[1] - u[1] * v[0]
    if abs(cross) < 0.2 * np.hypot(*u) * np.hypot(*v):
        return None
    across = ((q - p)[0] * v[1] - (q - p)[1] * v[0]) / cross
    crossing: NDArray[np.float64] = p + across * u
    return crossing


def write_polygons(
    class_map: Path,
    out: Path,
    config: PolygonsConfig | None = None,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> int:
    """Write the regions of a class map as GeoJSON: pixels of one class that are connected over their sides.

    Memory is bounded by the polygons of a strip, and those of the regions that go on below it: a region is
    written when no later strip can touch it. A background that spans the image is kept to the end unless left out.

    Args:
        class_map: a raster of one band of bytes, or OME-Zarr labels; of overlapping classes each band gives polygons.
        out: the GeoJSON file.
        config: which regions, and how their borders are written.
        overwrite: replace an existing file.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Returns:
        The number of polygons.

    Raises:
        ImageReadError, UnsupportedImageError: when the class map is missing, damaged or none.
        ConfigError: when a class to leave out is unknown, or coordinates are not.
        OutputExistsError: when `out` exists and `overwrite` is false.
        OutputWriteError: when it could not be written.
    """
    config = config or PolygonsConfig()
    with open_class_maps(class_map) as sources, written(out, overwrite=overwrite) as partial:
        first, report, count = sources[0], on_progress or _silent, 0
        kept = _kept_ids(first, config)
        place, unit = place_of(first.georeference, config.coordinates, _stretch(first)), area_unit(first)
        with partial.open("w", encoding="utf-8") as file:
            file.write(header(place.crs))
            for source in sources:
                for region, area in polygons(_strips(source, kept, lambda part: report(part / len(sources))), config):
                    file.write(",\n" if count else "\n")
                    file.writelines(feature(region, area, source, place, unit))
                    count += 1
            file.write(FOOTER)
    return count


def check_polygons(config: PolygonsConfig, names: Collection[str], georeference: Georeference | None) -> None:
    """Raise unless the polygons of a class map can be made.

    Args:
        config: which polygons, and how.
        names: of the classes.
        georeference: of the class map.

    Raises:
        ConfigError: when a class to leave out is unknown, or coordinates are not known.
    """
    unknown = [name for name in config.leave_out if name not in names]
    if unknown:
        known = ", ".join(list(names)[:_SHOWN])
        raise ConfigError(f"there is no class {unknown[0]!r} to leave out; the class map has {known}")
    place_of(georeference, config.coordinates)


def polygons(strips: Iterable[LabelArray], config: PolygonsConfig) -> Iterator[tuple[ClassRegion, int]]:
    """The regions that are large enough, simplified, each with its area in pixels."""
    for region in regions(strips):
        area = round(region.shape.area)
        if area >= config.min_area:
            yield _drawn(region, config), area


def _drawn(region: ClassRegion, config: PolygonsConfig) -> ClassRegion:
    if config.regular:
        shape = regularised(region.shape, config.simplify)
        valid = isinstance(shape, shapely.Polygon) and shape.is_valid
        return region._replace(shape=shapely.orient_polygons(shape)) if valid else region
    return simplified(region, config.simplify) if config.simplify else region


def simplified(region: ClassRegion, tolerance: float) -> ClassRegion:
    """A region whose valid polygon has fewer corners.

    Each polygon is simplified for itself: it keeps its holes and does not cross itself, but neighbours may overlap or
    part by up to twice the tolerance.

    Args:
        region: as found.
        tolerance: farthest that a border may move, pixels.
    """
    shape = region.shape.simplify(tolerance, preserve_topology=True)
    if not isinstance(shape, shapely.Polygon) or not shape.is_valid:
        return region
    return region._replace(shape=shapely.orient_polygons(shape))


def _stretch(class_map: ClassMap) -> tuple[float, float]:
    own, image = class_map.size, class_map.image_size
    return image.width / own.width, image.height / own.height


def _silent(share: float) -> None:
    del share


def _kept_ids(class_map: ClassMap, config: PolygonsConfig) -> LabelArray:
    """(256,) each id, or `NODATA` where it gets no polygon."""
    numbers = {class_map.name(value): value for value in class_map.names or range(NODATA)}
    check_polygons(config, numbers.keys(), class_map.georeference)
    ids = np.arange(256, dtype=np.uint8)
    if class_map.nodata is not None and 0 <= class_map.nodata <= 255:
        ids[class_map.nodata] = NODATA
    ids[[numbers[name] for name in config.leave_out]] = NODATA
    return ids


def _strips(class_map: ClassMap, kept: LabelArray, report: Progress) -> Iterator[LabelArray]:
    """The rows in parts of at most `_SIDES_AT_ONCE` borders between pixels."""
    as_is = np.array_equal(kept, np.arange(256))
    for strip in class_map.strips():
        ids = strip if as_is else kept[strip]
        sides = int((ids[1:] != ids[:-1]).sum() + (ids[:, 1:] != ids[:, :-1]).sum())
        rows = -(-len(ids) // min(len(ids), sides // _SIDES_AT_ONCE + 1))
        yield from (ids[top : top + rows] for top in range(0, len(ids), rows))
        report(len(strip) / class_map.size.height)
