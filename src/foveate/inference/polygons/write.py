"""Write the polygons of a class map of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from foveate.files import written
from foveate.inference.config import PolygonsConfig
from foveate.inference.polygons.check import check_polygons
from foveate.inference.polygons.class_map import ClassMap, open_class_map
from foveate.inference.polygons.corners import OUTSIDE
from foveate.inference.polygons.geojson import FOOTER, feature, header
from foveate.inference.polygons.place import area_unit, place_of
from foveate.inference.polygons.rings import Polygon, polygon_of
from foveate.inference.polygons.simplify import simplified
from foveate.inference.polygons.sweep import regions
from foveate.types import LabelArray

# Traced at once: borders take some hundred bytes a pixel where every pixel differs from its neighbours.
_PIXELS_AT_ONCE = 2**22

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

    Memory is bounded by a strip of the class map, and the corners of the regions that go on below it: a region is
    written when no later strip can touch it. A background that spans the image is kept to the end unless left out.

    Args:
        class_map: a raster of one band of bytes, or OME-Zarr labels.
        out: the GeoJSON file.
        config: which regions, and how their borders are written.
        overwrite: replace an existing file.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Returns:
        The number of polygons.

    Raises:
        ImageReadError, UnsupportedImageError: when the class map is missing, damaged or none.
        ConfigError: when a class to leave out is unknown, coordinates are not, or an extra is not installed.
        OutputExistsError: when `out` exists and `overwrite` is false.
        OutputWriteError: when it could not be written.
    """
    config = config or PolygonsConfig()
    with open_class_map(class_map) as source, written(out, overwrite=overwrite) as partial:
        kept = _kept_ids(source, config)
        place, unit, count = place_of(source.georeference, config.coordinates, _stretch(source)), area_unit(source), 0
        with partial.open("w", encoding="utf-8") as file:
            file.write(header(place.crs))
            for polygon in polygons(_strips(source, kept, on_progress or _silent), config):
                file.write(",\n" if count else "\n")
                file.writelines(feature(polygon, source, place, unit))
                count += 1
            file.write(FOOTER)
    return count


def polygons(strips: Iterator[LabelArray], config: PolygonsConfig) -> Iterator[Polygon]:
    """The polygons that are large enough, simplified."""
    for region in regions(strips):
        polygon = polygon_of(region)
        if polygon.area >= config.min_area:
            yield simplified(polygon, config.simplify) if config.simplify else polygon


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
    """The rows in parts of `_PIXELS_AT_ONCE`."""
    rows = max(1, _PIXELS_AT_ONCE // class_map.size.width)
    as_is = np.array_equal(kept, np.arange(256))
    for strip in class_map.strips():
        for top in range(0, len(strip), rows):
            part = strip[top : top + rows]
            yield part if as_is else kept[part]
        report(len(strip) / class_map.size.height)
