"""Write images as tiled TIFF with a pyramid, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import rasterio
from rasterio.enums import Resampling

from foveate.errors import ConfigError
from foveate.geometry import Resolution, Size, Window, halvings, windows_over
from foveate.tiff.raster import DRAFT, copy_as_cog, drafted, quiet, resolution_tags
from foveate.types import BoolArray, Raster

Compression: TypeAlias = Literal["deflate", "zstd", "lzw", "jpeg", "none"]
Progress: TypeAlias = Callable[[float], None]
_WRITING_SHARE = 0.6
_JPEG_QUALITY = 90
STRIP_BYTES = 64 << 20  # read and written at a time


@dataclass(frozen=True, slots=True)
class TiffSource:
    """The source of a TIFF.

    Attributes:
        size: of the image.
        bands: number of bands.
        dtype: of the pixels.
        read: the pixels (bands, h, w) of a window inside the image.
        by_rows: whether rows must be read whole.
        valid: which pixels of a window hold data; None where nodata, an alpha band or nothing says it.
        nodata: value of pixels without data.
        crs: coordinate reference system.
        transform: from pixels to it; None where there is none.
        resolution: of a pixel; written where there is no coordinate reference system.
        describe: what else is said about the bands, to an open TIFF; called before the first pixel.
    """

    size: Size
    bands: int
    dtype: np.dtype[Any]
    read: Callable[[Window], Raster]
    by_rows: bool = False
    valid: Callable[[Window], BoolArray] | None = None
    nodata: float | None = None
    crs: Any = None
    transform: Any = None
    resolution: Resolution | None = None
    describe: Callable[[Any], None] | None = None


def write_plain_pyramid(source: TiffSource, path: Path) -> None:
    """Write a tiled TIFF with overviews, compressed a little."""
    _write(path, source, 512, "zstd", False, lambda share: None)


def write_pyramid(
    source: TiffSource,
    destination: Path,
    *,
    overwrite: bool = False,
    tile: int = 512,
    compression: Compression = "deflate",
    labels: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a cloud-optimised TIFF (BigTIFF where the size may need it) with overviews.

    Such a file holds its overviews before its pixels: pixels go to a plain file first, which is copied, so that for a
    while the disk holds both.

    See `foveate.data.pyramids.convert` for the arguments and errors.
    """
    _check(source, tile, compression, labels)
    report = progress or (lambda share: None)
    with drafted(destination, overwrite) as folder:
        # What is compressed with loss must be so once only.
        lossless = "deflate" if compression == "jpeg" else compression
        _write(folder / "plain.tif", source, tile, lossless, labels, report)
        options = _compression_options(source, compression) | {"overviews": "AUTO"}
        copy_as_cog(folder / "plain.tif", folder / DRAFT, tile=tile, compress=compression, **options)
    report(1.0)


def _check(source: TiffSource, tile: int, compression: Compression, labels: bool) -> None:
    if tile not in {64 << k for k in range(7)}:
        raise ConfigError(f"tile must be a power of two from 64 to 4096, got {tile}")
    if compression != "jpeg":
        return
    if labels:
        raise ConfigError("labels cannot be compressed with 'jpeg', which changes values; use 'deflate'")
    if source.dtype != np.uint8 or source.bands not in (1, 3):
        raise ConfigError(
            f"'jpeg' takes 8-bit images of 1 or 3 bands, got {source.bands} bands of {source.dtype}; use 'deflate'"
        )


def _write(path: Path, source: TiffSource, tile: int, compression: Compression, labels: bool, report: Progress) -> None:
    quiet()
    with (
        rasterio.open(path, "w", **_profile(source, tile, compression)) as output,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
    ):
        _describe(output, source)
        for window in _windows(source, tile):
            output.write(source.read(window), window=window.ranges)
            if source.valid is not None:
                output.write_mask(source.valid(window), window=window.ranges)
            report(_WRITING_SHARE * window.bottom / source.size.height)
    _build_overviews(path, tile, labels)


def _profile(source: TiffSource, tile: int, compression: Compression) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": source.size.height, "width": source.size.width, "count": source.bands,
        "dtype": source.dtype.name, "nodata": source.nodata, "crs": source.crs, "transform": source.transform,
        "tiled": True, "blockxsize": tile, "blockysize": tile, "bigtiff": "IF_SAFER", "compress": compression,
    }  # fmt: skip
    return profile | _compression_options(source, compression)


def _compression_options(source: TiffSource, compression: Compression) -> dict[str, Any]:
    """Differences of neighbours compress better than pixels: predictor 2 is for integers, 3 for floats."""
    if compression == "jpeg":
        return {"quality": _JPEG_QUALITY}
    return {} if compression == "none" else {"predictor": 3 if source.dtype.kind == "f" else 2}


def _describe(output: Any, source: TiffSource) -> None:
    """Before the first pixel: afterwards the TIFF's header is on disk and would be written a second time."""
    if source.describe is not None:
        source.describe(output)
    if source.resolution is not None and source.crs is None:
        output.update_tags(**resolution_tags(source.resolution.row, source.resolution.col))


def _windows(source: TiffSource, tile: int) -> Iterator[Window]:
    """A read and its write are each within the bound; rows of tiles, so that every tile is written once."""
    size = source.size
    width = max(tile, STRIP_BYTES // (tile * source.bands * source.dtype.itemsize) // tile * tile)
    width = size.width if source.by_rows else width
    return windows_over(size, tile, width)


def _build_overviews(path: Path, tile: int, labels: bool) -> None:
    with rasterio.open(path, "r+") as output:
        factors = [1 << k for k in range(1, len(halvings(Size(*output.shape))))]
        if factors:
            with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(tile)):
                output.build_overviews(factors, Resampling.nearest if labels else Resampling.average)
