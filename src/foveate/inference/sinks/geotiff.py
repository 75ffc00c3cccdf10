"""Write rasters block by block as tiled, compressed GeoTIFF with overviews, under a temporary name until complete."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from foveate.data.readers.base import Georeference
from foveate.data.readers.gdal import quiet
from foveate.errors import OutputWriteError
from foveate.files import written
from foveate.geometry import Size, Window
from foveate.types import Raster

TILE = 512


class RasterWriter:
    """One open GeoTIFF; made by `open_geotiff`."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self._dataset = dataset
        self._path = path

    def write(self, window: Window, values: Raster) -> None:
        """Write (h, w), or (bands, h, w) where there are several, into a window of the raster's own pixels.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        place = RasterWindow(window.left, window.top, window.width, window.height)
        try:
            self._dataset.write(values.reshape(-1, *values.shape[-2:]), window=place)
        except RasterioError as error:
            raise OutputWriteError(f"could not write {self._path}: {error}") from error


@contextmanager
def open_geotiff(
    path: Path,
    size: Size,
    dtype: str,
    georeference: Georeference | None,
    *,
    bands: Sequence[str] = ("",),
    colors: list[tuple[int, int, int]] | None = None,
    tags: dict[str, str] | None = None,
    overwrite: bool = False,
) -> Iterator[RasterWriter]:
    """Open a GeoTIFF for writing; overviews are added and the file renamed when the block ends well.

    Args:
        path: final name.
        size: of the raster.
        dtype: numpy name of its values; among floats NaN means that nothing is known, also where nothing is written.
        georeference: of this raster's own pixel grid.
        bands: what each band is; one without a name by default.
        colors: colour table for class ids 0, 1, ...
        tags: metadata.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: when the file exists and `overwrite` is false.
        OutputWriteError: when writing fails; nothing is left under the final name then.
    """
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": len(bands), "dtype": dtype, "height": size.height, "width": size.width,
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "BIGTIFF": "IF_SAFER",
        "nodata": math.nan if np.dtype(dtype).kind == "f" else None,
    }  # fmt: skip
    if georeference is not None:
        profile |= {"crs": georeference.crs, "transform": rasterio.Affine(*georeference.transform)}
    with written(path, overwrite=overwrite) as partial:
        try:
            with _opened(partial, "w", **profile) as dataset:
                if colors:
                    dataset.write_colormap(1, {i: (*color, 255) for i, color in enumerate(colors)})
                dataset.update_tags(**(tags or {}))
                dataset.descriptions = bands
                yield RasterWriter(dataset, path)
            _add_overviews(partial, size)
            _check_complete(partial)
        except RasterioError as error:
            raise OutputWriteError(f"could not write {path}: {error}; nothing was left under that name") from error


def _opened(path: Path, mode: str, **options: Any) -> Any:
    with quiet():
        return rasterio.open(path, mode, **options)


def _add_overviews(path: Path, size: Size) -> None:
    """Nearest overviews, which class ids need, down to a side of one tile."""
    factors: list[int] = []
    longest = max(size.height, size.width)
    while longest > TILE << len(factors):
        factors.append(2 << len(factors))
    if factors:
        with _opened(path, "r+") as dataset:
            dataset.build_overviews(factors, Resampling.nearest)


def _check_complete(path: Path) -> None:
    """Read one tile back: GDAL reports some failed writes of its cache only as a warning when it closes."""
    with _opened(path, "r") as dataset:
        last = RasterWindow(dataset.width - 1, dataset.height - 1, 1, 1)
        np.asarray(dataset.read(1, window=last))
