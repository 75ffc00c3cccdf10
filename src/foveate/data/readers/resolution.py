"""How large a pixel is: as a file says, and on the ground, where projections stretch and degrees are no lengths."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as warp

from foveate.errors import ConfigError
from foveate.geometry import Georeference, Resolution, Size
from foveate.texts import metres

# WGS 84: semi-major axis in metres, and the square of the eccentricity.
_AXIS, _ECCENTRICITY = 6378137.0, 0.0066943799901413165
_LONLAT = "EPSG:4326"
_LATTICE, _RIGHT = 33, 0.01
# Cameras and editors write the size of a print, 72 to 600 pixels per inch; a tag is believed from here on.
_LEAST_PER_METRE = 1000 / 0.0254
_MEASURED, _ALIKE = 0.005, 1.1
_SPREAD = np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])  # corners, sides and the centre of an image
_UNITS = {"2": 0.0254, "3": 0.01}
_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_OME = 'PhysicalSize{axis}="([0-9.eE+-]+)"'
_OME_UNIT = 'PhysicalSize{axis}Unit="([^"]+)"'


def pixel_sides(
    crs: CRS, transform: Sequence[float], rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sides and areas of pixels around places of an image.

    Args:
        crs: the image's coordinate reference system.
        transform: as of `Georeference`.
        rows: of n places, in pixels.
        cols: of the same places.

    Returns:
        (3, n): height and width in metres and area in square metres; NaN where a place is not on Earth.
    """
    centre = np.array([cols, rows], np.float64)
    # A pixel is small: around it the Earth is flat and the projection is linear.
    steps = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]).T
    a, b, c, d, e, f = transform
    x, y = np.array([[a, b], [d, e]]) @ (centre[:, None, :] + steps[:, :, None]).reshape(2, -1) + [[c], [f]]
    try:
        lon, lat = (np.array(part).reshape(4, -1) for part in warp(crs, _LONLAT, x, y))
    except (CRSError, RasterioError):
        return np.full((3, centre.shape[1]), math.nan)
    east, north = _metres(lon, lat)
    along_cols = east[0] - east[1], north[0] - north[1]
    along_rows = east[2] - east[3], north[2] - north[3]
    area = np.abs(along_cols[0] * along_rows[1] - along_cols[1] * along_rows[0])
    return np.stack([np.hypot(*along_rows), np.hypot(*along_cols), area])


def area_lattice(crs: CRS, transform: Sequence[float], size: Size) -> NDArray[np.float64]:
    """Square metres of a pixel, at places spread evenly over an image: (k, k), or (1, 1) where one value holds.

    What a projection that is made to measure says, which is right to one percent, is taken as it is. NaN where a place
    is not on Earth.
    """
    rows, cols = np.meshgrid(np.linspace(0, size.height, _LATTICE), np.linspace(0, size.width, _LATTICE), indexing="ij")
    true = pixel_sides(crs, transform, rows.ravel(), cols.ravel())[2].reshape(rows.shape)
    a, b, _, d, e, _ = transform
    said = abs(a * e - b * d) * (crs.linear_units_factor[1] ** 2 if crs.is_projected else math.nan)
    return np.array([[said]]) if not np.isfinite(true).all() or (np.abs(true / said - 1) < _RIGHT).all() else true


def _metres(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (k, n) as metres east and north of the first of each of the n."""
    middle = np.radians(lat[:1])
    bend = 1 - _ECCENTRICITY * np.sin(middle) ** 2
    around = (np.radians(lon - lon[:1]) + math.pi) % (2 * math.pi) - math.pi
    east = around * _AXIS / np.sqrt(bend) * np.cos(middle)
    north = np.radians(lat - lat[:1]) * _AXIS * (1 - _ECCENTRICITY) / bend**1.5
    return east, north


def resolution_of(dataset: Any, place: Georeference | None) -> Resolution | None:
    """Of an open rasterio dataset: from its place on the ground, a scanner's description or the TIFF's own tags.

    A place on the ground comes first.
    """
    if place is not None and place.crs:
        return on_ground(place, Size(*dataset.shape))
    tags = dataset.tags()
    description = tags.get("TIFFTAG_IMAGEDESCRIPTION", "")
    return _described(description) or _imagej(description, tags) or tagged(tags)


def on_ground(place: Georeference, size: Size) -> Resolution | None:
    """How large pixels are in truth, whatever the projection says; None where they differ by more than a tenth.

    What a projection that is made to measure says, which is right to half a percent, is taken as it is.
    """
    crs = rasterio.CRS.from_wkt(place.crs)
    a, b, _, d, e, _ = place.transform
    try:
        unit = crs.linear_units_factor[1] if crs.is_projected else 0.0
    except CRSError:
        unit = 0.0
    said = np.array([math.hypot(b, e), math.hypot(a, d)]) * unit
    rows, cols = (share.ravel() * side for share, side in zip(_SPREAD, (size.height, size.width), strict=True))
    sides = pixel_sides(crs, place.transform, rows, cols)[:2]
    if not np.isfinite(sides).all():
        return Resolution.known(*said)
    if unit and (np.abs(sides / said[:, None] - 1) < _MEASURED).all():
        return Resolution.known(*said)
    alike = (sides.max(axis=1) <= _ALIKE * sides.min(axis=1)).all()
    return Resolution.known(*np.median(sides, axis=1)) if alike else None


def _described(text: str) -> Resolution | None:
    """From the description that Aperio's scanners write, or from OME-XML."""
    found = _MPP.search(text)
    if found:
        side = _number(found[1]) * 1e-6
        return Resolution.known(side, side)
    return Resolution.known(_ome(text, "Y"), _ome(text, "X")) if "<OME" in text else None


def _imagej(text: str, tags: Mapping[str, str]) -> Resolution | None:
    """ImageJ names the unit in its description, of which the tags count the pixels."""
    unit = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    if not text.startswith("ImageJ=") or unit is None:
        return None
    name = {"micron": "um", "\\u00B5m": "um"}.get(unit[1].strip(), unit[1].strip())
    try:
        side = metres(f"1 {name}")
    except ConfigError:
        return None
    rows, cols = (_number(tags.get(f"TIFFTAG_{axis}RESOLUTION", "")) for axis in "YX")
    return Resolution.known(side / rows, side / cols) if min(rows, cols) > 0 else None


def _ome(text: str, axis: str) -> float:
    size, unit = re.search(_OME.format(axis=axis), text), re.search(_OME_UNIT.format(axis=axis), text)
    if size is None:
        return 0.0
    try:
        return metres(f"{size[1]} {unit[1] if unit else 'um'}")
    except ConfigError:
        return 0.0


def tagged(tags: Mapping[str, str]) -> Resolution | None:
    """From the TIFF's own tags; None where they say the size of a print."""
    unit = _UNITS.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "").partition(" ")[0])
    if unit is None:
        return None
    rows, cols = (_number(tags.get(f"TIFFTAG_{axis}RESOLUTION", "")) / unit for axis in "YX")
    return Resolution.known(1 / rows, 1 / cols) if min(rows, cols) >= _LEAST_PER_METRE else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
