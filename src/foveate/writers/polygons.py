"""Write the polygons of a class map of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import shapely

from foveate.errors import ConfigError
from foveate.files import written
from foveate.geometry import Georeference
from foveate.types import LabelArray
from foveate.writers import PolygonsConfig
from foveate.writers.class_map import ClassMap, open_class_maps
from foveate.writers.geojson import FOOTER, area_unit, feature, header, place_of
from foveate.writers.regions import OUTSIDE, Region, regions
from foveate.writers.regular import regularised

# Traced at once: where every pixel differs from its neighbours a polygon takes about a kilobyte.
_SIDES_AT_ONCE = 2**20
_SHOWN = 20

Progress = Callable[[float], None]


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


def polygons(strips: Iterable[LabelArray], config: PolygonsConfig) -> Iterator[tuple[Region, int]]:
    """The regions that are large enough, simplified, each with its area in pixels."""
    for region in regions(strips):
        area = round(region.shape.area)
        if area >= config.min_area:
            yield _drawn(region, config), area


def _drawn(region: Region, config: PolygonsConfig) -> Region:
    if config.regular:
        shape = regularised(region.shape, config.simplify)
        valid = isinstance(shape, shapely.Polygon) and shape.is_valid
        return region._replace(shape=shapely.orient_polygons(shape)) if valid else region
    return simplified(region, config.simplify) if config.simplify else region


def simplified(region: Region, tolerance: float) -> Region:
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
    """(256,) each id, or `OUTSIDE` where it gets no polygon."""
    numbers = {class_map.name(value): value for value in class_map.names or range(OUTSIDE)}
    check_polygons(config, numbers.keys(), class_map.georeference)
    ids = np.arange(256, dtype=np.uint8)
    if class_map.nodata is not None and 0 <= class_map.nodata <= 255:
        ids[class_map.nodata] = OUTSIDE
    ids[[numbers[name] for name in config.leave_out]] = OUTSIDE
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
