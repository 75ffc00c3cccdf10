"""How large a pixel is: what a file that GDAL reads says of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import CRSError

from foveate.data.readers.base import Georeference, Resolution
from foveate.data.readers.ground import pixel_sides
from foveate.errors import ConfigError
from foveate.geometry import Size
from foveate.units import metres

# Cameras and editors write the size of a print, 72 to 600 pixels per inch; a tag is believed from here on.
_LEAST_PER_METRE = 1000 / 0.0254
_RIGHT, _ALIKE = 0.005, 1.1
_SPREAD = np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])  # corners, sides and the centre of an image
_UNITS = {"2": 0.0254, "3": 0.01}
_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_OME = 'PhysicalSize{axis}="([0-9.eE+-]+)"'
_OME_UNIT = 'PhysicalSize{axis}Unit="([^"]+)"'


def resolution_of(dataset: Any, place: Georeference | None) -> Resolution | None:
    """Of an open rasterio dataset: from its place on the ground, a scanner's description or the TIFF's own tags.

    A place on the ground comes first.
    """
    if place is not None and place.crs:
        return on_ground(place, Size(*dataset.shape))
    tags = dataset.tags()
    description = tags.get("TIFFTAG_IMAGEDESCRIPTION", "")
    return _described(description) or _imagej(description, tags) or _tagged(tags)


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
    if unit and (np.abs(sides / said[:, None] - 1) < _RIGHT).all():
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


def _tagged(tags: Mapping[str, str]) -> Resolution | None:
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
