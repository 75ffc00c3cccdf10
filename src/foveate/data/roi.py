"""The area of an image, from what is wanted of it: regions of interest come as GeoJSON, as QuPath and QGIS write it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as warp

from foveate.data.area import Area, Polygons, Ring, TissueMask, is_slide
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ConfigError, reason_of, translated
from foveate.geometry import Georeference
from foveate.texts import read_json
from foveate.types import Coordinates, Tissue

_LONLAT = "OGC:CRS84"
_MOST_BYTES = 64 << 20
_ToPixels = Callable[[Ring], Ring]


def load_region(path: Path, image: ImageReader, coordinates: Coordinates = "auto") -> Polygons:
    """The polygons of a file, in pixels of an image.

    Args:
        path: a GeoJSON file: features, or bare geometries, of polygons and multipolygons.
        image: the image.
        coordinates: "pixels" of the image as it is stored, those of its coordinate reference system ("crs"), or
            longitude and latitude. "auto" is the system that the file names in its member `crs`; without one, pixels
            where the image has no place on Earth or no corner could be a longitude and latitude, else "lonlat", which
            is what GeoJSON means (RFC 7946).

    Raises:
        ConfigError: when there is no such file, it holds something else, its coordinates cannot be brought to the
            image, or nothing of the image is inside.
    """
    if not path.is_file():
        raise ConfigError(f"no region of interest at {path}")
    tree = read_json(path, ConfigError, "a region of interest is a GeoJSON file", _MOST_BYTES)
    with translated(ConfigError, f"{path} has a polygon whose coordinates are not numbers", "it is damaged"):
        polygons = [tuple(map(_ring, rings)) for rings in _polygons(tree, path) if rings]
    if not polygons:
        raise ConfigError(f"{path} has no polygon; a region of interest needs at least one")
    with translated(
        ConfigError,
        f"the coordinates in {path} cannot be converted to pixels of {image.location}",
        "check its coordinates",
    ):
        to_pixels = pixel_transform(named_system(tree, path), [r[0] for r in polygons], image, coordinates, path)
        region = Polygons([tuple(to_pixels(ring) for ring in rings) for rings in polygons])
        _check_meets(region, image, path)
    return region


def region_file(place: Path, stem: str) -> Path:
    """The file of an image's region: the given one, or that of the image's name in a folder."""
    return place / f"{stem}.geojson" if place.is_dir() else place


def _polygons(tree: Any, path: Path) -> Iterator[Any]:
    """The rings of every polygon."""
    if isinstance(tree, list):  # QuPath writes a bare list of features too
        tree = {"type": "FeatureCollection", "features": tree}
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "Polygon":
        yield tree.get("coordinates", ())
    elif kind == "MultiPolygon":
        yield from tree.get("coordinates", ())
    elif kind == "Feature":
        yield from _polygons(tree.get("geometry"), path)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        for part in tree.get("features", tree.get("geometries", ())):
            yield from _polygons(part, path)
    else:
        raise ConfigError(
            f"{path} holds {kind or repr(tree)}; a region of interest is made of Polygon and MultiPolygon"
        )


def _ring(points: Any) -> Ring:
    ring = np.array([point[:2] for point in points], np.float64)
    if len(ring) < 4 or not np.isfinite(ring).all():
        raise ValueError("a ring has at least four corners")
    return ring


def pixel_transform(
    named: CRS | None,
    rings: list[Ring],
    image: ImageReader,
    coordinates: Coordinates,
    path: Path,
    hint: str = "--roi-coordinates",
) -> Callable[[Ring], Ring]:
    """From coordinates (n, 2) of a file to columns and rows of an image at its working resolution.

    `named` is the system that the file names, `rings` are points of it, by which "auto" decides, see `load_region`, and
    `hint` is the option that says which coordinates these are.

    Raises:
        ConfigError: when coordinates on Earth are given and the image has no place there.
    """
    place = image.georeference
    own = CRS.from_wkt(place.crs) if place is not None and place.crs else None
    if coordinates == "auto":
        may_be_degrees = own is not None and any((np.abs(ring) <= (180, 90)).all() for ring in rings)
        coordinates = "crs" if named is not None else "lonlat" if may_be_degrees else "pixels"
    if coordinates == "pixels":
        rows, cols = image.size.height / image.stored_size.height, image.size.width / image.stored_size.width
        return lambda ring: ring * (cols, rows)
    if place is None or own is None:
        raise ConfigError(
            f"{path} has coordinates on Earth, but {image.location} has no georeference; give polygons in its pixels, "
            f"with {hint} pixels"
        )
    return _from_earth(named or own if coordinates == "crs" else None, own, place)


def named_system(tree: Any, path: Path) -> CRS | None:
    """The system of the older GeoJSON's member `crs`; None without one.

    Raises:
        ConfigError: when it is not known.
    """
    member = tree.get("crs") if isinstance(tree, dict) else None
    if not member:
        return None
    try:
        return _system(str(member["properties"]["name"]))
    except (CRSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} names an unknown coordinate reference system: {str(member)[:100]} ({reason_of(error)})"
        ) from None


def _system(name: str) -> CRS:
    """A system by its WKT or its name in a register: GDAL itself also follows addresses, and reads files."""
    if re.match(r"\s*[A-Z_]{4,}\s*\[", name):
        return CRS.from_wkt(name)
    known = re.fullmatch(r"(?:https?://www\.opengis\.net/def/crs/)(\w+)/[\w.]+/(\w+)", name)
    name = f"{known[1]}:{known[2]}" if known else name
    if not re.fullmatch(r"\w+(:[\w.]*)+", name):
        raise ValueError("it is not a name such as EPSG:32633")
    return CRS.from_user_input(name)


def _from_earth(source: CRS | None, own: CRS, place: Georeference) -> _ToPixels:
    """From a system, or longitude and latitude, to pixels."""
    a, b, c, d, e, f = place.transform
    inverse = np.linalg.inv([[a, b], [d, e]])

    def to_pixels(ring: Ring) -> Ring:
        x, y = ring.T
        if source != own:
            try:
                x, y = map(np.asarray, warp(source or _LONLAT, own, x, y))
            except RasterioError as error:
                raise ConfigError(
                    f"the region of interest cannot be converted to the coordinates of the image: {error}"
                ) from None
        pixels: Ring = np.stack([x - c, y - f], axis=1) @ inverse.T
        return pixels

    return to_pixels


def _check_meets(region: Polygons, image: ImageReader, path: Path) -> None:
    left, top, right, bottom = region.bounds
    size = image.size
    if not (left < size.width and right > 0 and top < size.height and bottom > 0):
        raise ConfigError(
            f"the region of interest in {path} spans columns {left:.0f} to {right:.0f} and rows {top:.0f} to "
            f"{bottom:.0f}, but {image.location} has {size.width} columns and {size.height} rows, so they do not "
            "overlap. Set --roi-coordinates to pixels, crs or lonlat"
        )


class Roi(NamedTuple):
    """Where regions of interest are."""

    place: Path  # a GeoJSON file, or a folder with one of each image's name
    coordinates: Coordinates = "auto"  # see `load_region`


def area_of(
    image: ImageReader, stem: str, *, roi: Roi | None = None, nodata: bool = True, tissue: Tissue = False
) -> Area:
    """The pixels of an image that are looked at; it stays open for as long as the area is used.

    Pixels that hold no data, by nodata value, mask or alpha, are left out, and glass, where that is asked for and
    tissue is found. A folder of regions has one by the name of the image.
    """
    region = None if roi is None else load_region(region_file(roi.place, stem), image, roi.coordinates)
    mask = TissueMask.of(image) if tissue_is_sought(image, tissue) else None
    return Area(
        image.size,
        region,
        image if nodata and image.masked else None,
        mask if mask is not None and mask.mask.any() else None,
    )


def tissue_is_sought(image: ImageReader, tissue: Tissue) -> bool:
    """Whether glass of an image is to be left out, where tissue is found on it."""
    return is_slide(image) if tissue == "auto" else tissue
