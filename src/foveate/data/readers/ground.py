"""How large a pixel is on the ground, in whatever system: projections stretch, and degrees are no lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rasterio import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as warp

from foveate.geometry import Size

# WGS 84: semi-major axis in metres, and the square of the eccentricity.
_AXIS, _ECCENTRICITY = 6378137.0, 0.0066943799901413165
_LONLAT = "EPSG:4326"
_LATTICE, _RIGHT = 33, 0.01


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
