"""Write the polygons of a class map of any size as GeoJSON, feature by feature, in bounded memory."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio.warp import transform as warp
from scipy import ndimage

from foveate.data.readers.gdal import area_lattice
from foveate.errors import ConfigError
from foveate.files import refuse_existing, written
from foveate.geometry import Coordinates, DoubleArray, Georeference, LabelArray, Size
from foveate.tiff.raster import NODATA
from foveate.writers import PolygonsConfig
from foveate.writers.class_map import ClassMap, open_class_maps
from foveate.writers.regions import ClassRegion, regions, regularised

FOOTER = "\n]}\n"
_WHOLE = re.compile(r"\.0\b")  # what corners of pixels are written without
_LONLAT = "OGC:CRS84"
_SHARE_OF_A_PIXEL = 1e-3  # to which coordinates are written
_EARTH = 111_320  # metres in a degree of latitude
# Traced at once: where every pixel differs from its neighbours a polygon takes about a kilobyte.
_SIDES_AT_ONCE = 2**20
_SHOWN = 20
Progress = Callable[[float], None]


def header(crs: str | None) -> str:
    """The start of the file, up to the first feature."""
    member = json.dumps({"type": "name", "properties": {"name": crs}})
    return '{"type": "FeatureCollection",\n' + (f'"crs": {member},\n' if crs else "") + '"features": ['


def feature(region: ClassRegion, area: int, class_map: ClassMap, place: "Place", unit: "AreaUnit | None") -> str:
    """A region as a GeoJSON feature: an annotation for QuPath, with plain properties for everything else."""
    name = class_map.name(region.value)
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": name, "color": list(class_map.color(region.value))},
        "class": name,
        "class_id": region.value,
        "area_px": area,
    }
    if unit is not None:
        properties[unit.key] = float(f"{unit.of(region, area):.6g}")
    # The outer ring counterclockwise, as RFC 7946 asks for.
    shape = shapely.orient_polygons(shapely.transform(region.shape, place.to))
    geometry = _WHOLE.sub("", shapely.to_geojson(shape))
    return f'{{"type": "Feature", "properties": {json.dumps(properties)}, "geometry": {geometry}}}'


class Place(NamedTuple):
    """How pixels become coordinates."""

    to: Callable[[Any], Any]  # (n, 2) columns and rows to (n, 2) x and y, rounded
    crs: str | None  # name of the coordinate reference system where it is not longitude and latitude, else None


def place_of(place: Georeference | None, coordinates: Coordinates, stretch: tuple[float, float] = (1.0, 1.0)) -> Place:
    """The coordinates that are written for the pixels of a class map.

    GeoJSON (RFC 7946) knows longitude and latitude only. Straight borders of pixels are not straight there, and a
    polygon shall lie exactly on its class map, so that a map's own system is kept and named in the member `crs` of the
    older GeoJSON, which GDAL and QGIS read. A system without an EPSG code has no such name; it becomes longitude and
    latitude.

    Args:
        place: of the class map.
        coordinates: which are wanted.
        stretch: pixels of the image, as it is stored, per pixel of the class map: along columns, along rows.

    Raises:
        ConfigError: when the class map has no place on the ground, and coordinates there are asked for.
    """
    crs = _on_earth(place)
    if coordinates == "pixels" or (coordinates == "auto" and crs is None):
        return Place(lambda points: np.round(points * stretch, 3), None)
    if place is None or crs is None:
        raise ConfigError(f"coordinates {coordinates!r} need a class map that knows its place on Earth; use 'pixels'")
    code = crs.to_epsg()
    if coordinates == "lonlat" or code in (None, 4326):
        return _lonlat(place, crs)
    return Place(_affine(place, _decimals(place)), f"urn:ogc:def:crs:EPSG::{code}")


def _on_earth(place: Georeference | None) -> Any:
    """The coordinate reference system; None where there is none, or one of a drawing or a building."""
    crs = rasterio.CRS.from_wkt(place.crs) if place is not None and place.crs else None
    return crs if crs is not None and (crs.is_projected or crs.is_geographic) else None


def _affine(place: Georeference, decimals: int) -> Callable[[Any], Any]:
    a, b, c, d, e, f = place.transform
    matrix, offset = np.array([[a, d], [b, e]]), np.array([c, f])
    return lambda points: np.round(points @ matrix + offset, decimals)


def _decimals(place: Georeference) -> int:
    a, b, _, d, e, _ = place.transform
    return max(0, math.ceil(-math.log10(_SHARE_OF_A_PIXEL * min(math.hypot(a, d), math.hypot(b, e)))))


def _lonlat(place: Georeference, crs: Any) -> Place:
    exact = _affine(place, 15)
    metres = crs.linear_units_factor[1] if crs.is_projected else 1.0
    decimals = _decimals(place) + (math.ceil(math.log10(_EARTH / metres)) if crs.is_projected else 0)

    def to(points: Any) -> Any:
        x, y = warp(crs, _LONLAT, *exact(points).T)
        return np.round(np.stack([x, y], axis=1), decimals)

    return Place(to, None)


class AreaUnit(NamedTuple):
    """What the area of a pixel is called, and how large it is."""

    key: str  # name of the property
    per_pixel: DoubleArray  # (k, k) at places spread evenly over the image, or (1, 1)
    size: Size  # of the image

    def of(self, region: ClassRegion, pixels: int) -> float:
        """The area of a region of so many pixels, by the size of those around its centre."""
        if self.per_pixel.size == 1:
            return pixels * float(self.per_pixel[0, 0])
        centre, last = region.shape.centroid, len(self.per_pixel) - 1
        place = [[centre.y / self.size.height * last], [centre.x / self.size.width * last]]
        return pixels * float(ndimage.map_coordinates(self.per_pixel, place, order=1, mode="nearest")[0])


def area_unit(class_map: ClassMap) -> AreaUnit | None:
    """Square metres on the ground of a map, square micrometres of a slide of known resolution."""
    place, size = class_map.georeference, class_map.size
    crs = _on_earth(place)
    if place is not None and crs is not None:
        areas = area_lattice(crs, place.transform, size)
        return AreaUnit("area_m2", areas, size) if np.isfinite(areas).all() else None
    if class_map.resolution is not None:
        pixel = class_map.resolution
        return AreaUnit("area_um2", np.array([[pixel.row * pixel.col * 1e12]]), size)
    return None


def write_polygons(
    class_map: Path | str,
    out: Path | str,
    config: PolygonsConfig | None = None,
    *,
    coordinates: Coordinates = "auto",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> int:
    """Write the regions of a class map as GeoJSON: pixels of one class that are connected over their sides.

    Memory is bounded by the polygons of a strip, those of the regions that go on below it, and the text of one: a
    region is written when no later strip can touch it. A background that spans the image is kept to the end unless left
    out.

    Args:
        class_map: a raster of one band of bytes, or OME-Zarr labels; of overlapping classes each band gives polygons.
        out: the GeoJSON file.
        config: which regions, and how their borders are written.
        coordinates: "pixels" of the stored image, even if it was read at another pixel size; "crs" (the coordinate
            reference system of the class map); "lonlat"; or "auto" (crs if the class map has one, else pixels).
        overwrite: replace an existing file.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Returns:
        The number of polygons.

    Raises:
        ImageReadError, UnsupportedImageError: when the class map is missing, damaged or none.
        ConfigError: when a class to leave out is unknown, coordinates are not, or `out` has the name of another format.
        OutputExistsError: when `out` exists and `overwrite` is false.
        OutputWriteError: when it could not be written.
    """
    config, class_map, out = config or PolygonsConfig(), Path(class_map), Path(out)
    refuse_existing(out, overwrite, [".geojson", ".json"])
    with open_class_maps(class_map) as sources, written(out, overwrite=overwrite) as partial:
        first, report, count = sources[0], on_progress or (lambda share: None), 0
        kept = _kept_ids(first, config)
        own, image = first.size, first.image_size
        stretch = image.width / own.width, image.height / own.height
        place, unit = place_of(first.georeference, coordinates, stretch), area_unit(first)
        with partial.open("w", encoding="utf-8") as file:
            file.write(header(place.crs))
            for source in sources:
                for region, area in polygons(_strips(source, kept, lambda part: report(part / len(sources))), config):
                    file.write(",\n" if count else "\n")
                    file.write(feature(region, area, source, place, unit))
                    count += 1
            file.write(FOOTER)
    return count


def check_polygons(config: PolygonsConfig, names: Collection[str]) -> None:
    """Raise `ConfigError` when a class to leave out is not among the names."""
    unknown = [name for name in config.leave_out if name not in names]
    if unknown:
        known = ", ".join(list(names)[:_SHOWN])
        raise ConfigError(f"there is no class {unknown[0]!r} to leave out; the class map has {known}")


def polygons(strips: Iterable[LabelArray], config: PolygonsConfig) -> Iterator[tuple[ClassRegion, int]]:
    """The regions that are large enough, simplified, each with its area in pixels."""
    for region in regions(strips):
        area = round(region.shape.area)
        if area >= config.min_area:
            yield _drawn(region, config), area


def _drawn(region: ClassRegion, config: PolygonsConfig) -> ClassRegion:
    """A region with fewer corners, where it stays a valid polygon.

    Each is drawn for itself: it keeps its holes and does not cross itself, but neighbours may overlap or part by up to
    twice the tolerance.
    """
    if not (config.regular or config.simplify):
        return region
    change = regularised if config.regular else shapely.Polygon.simplify
    shape = change(region.shape, config.simplify)
    valid = isinstance(shape, shapely.Polygon) and shape.is_valid
    return region._replace(shape=shapely.orient_polygons(shape)) if valid else region


def _kept_ids(class_map: ClassMap, config: PolygonsConfig) -> LabelArray:
    """(256,) each id, or `NODATA` where it gets no polygon."""
    numbers = {class_map.name(value): value for value in class_map.names or range(NODATA)}
    check_polygons(config, numbers.keys())
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
