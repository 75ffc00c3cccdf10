"""Convert any readable image to a tiled TIFF with a pyramid, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import rasterio
from rasterio.enums import Resampling

from foveate.data.readers.gdal import open_dataset, quiet, reading
from foveate.data.readers.location import Location
from foveate.data.readers.memory import halvings
from foveate.data.readers.pyramid import STRIP_BYTES
from foveate.errors import ConfigError, ImageReadError
from foveate.files import written
from foveate.geometry import Size, Window

Compression: TypeAlias = Literal["deflate", "zstd", "lzw", "jpeg", "none"]
Progress: TypeAlias = Callable[[float], None]
# Formats that decode from the first row on: reading part of a row and coming back would decode it all again.
_SEQUENTIAL = ("PNG", "JPEG")
_WRITING_SHARE = 0.75
_JPEG_QUALITY = 90


def convert(
    source: Path | str | Location,
    destination: Path,
    *,
    overwrite: bool = False,
    tile: int = 512,
    compression: Compression = "deflate",
    labels: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a tiled TIFF (BigTIFF where the size may need it) with overviews, all bands, colours and georeference.

    Args:
        source: a file or URL of an image GDAL can read. PNG and JPEG are decoded row by row, never whole.
        destination: the TIFF to write; it appears under its name only when complete.
        overwrite: replace an existing file.
        tile: side of a stored tile in pixels, a power of two from 64 to 4096.
        compression: "jpeg" loses detail and takes 8-bit images of 1 or 3 bands only; the others are lossless.
        labels: overviews pick one pixel instead of the mean, as class ids must not be blended.
        progress: called with the share done, from 0 to 1.

    Raises:
        ImageReadError: when the source is missing or damaged.
        UnsupportedImageError: when GDAL cannot open the source.
        ConfigError: when tile or compression are not possible.
        OutputExistsError: when the destination exists and `overwrite` is false.
        OutputWriteError: when writing failed.
    """
    place = Location.of(source)
    if place.is_local and not place.path.exists():
        raise ImageReadError(f"no image at {place}")
    if tile not in {64 << k for k in range(7)}:
        raise ConfigError(f"tile must be a power of two from 64 to 4096, got {tile}")
    report = progress or _silent
    with reading(str(place)), open_dataset(place) as image, written(destination, overwrite=overwrite) as partial:
        options = _profile(image, tile, compression, labels)
        with quiet():
            output = rasterio.open(partial, "w", **options)
        with output:
            _copy_pixels(image, output, str(place), report)
        _build_overviews(partial, tile, labels)
    report(1.0)


def _silent(share: float) -> None:
    del share


def _profile(image: Any, tile: int, compression: Compression, labels: bool) -> dict[str, Any]:
    dtype = np.result_type(*image.dtypes)
    options: dict[str, Any] = {
        "driver": "GTiff",
        "height": image.height,
        "width": image.width,
        "count": image.count,
        "dtype": dtype.name,
        "nodata": image.nodata,
        "crs": image.crs,
        "transform": None if image.transform.is_identity else image.transform,
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "bigtiff": "IF_SAFER",
        "compress": compression,
    }
    if compression == "jpeg":
        return options | _jpeg_options(dtype, image.count, labels)
    if compression != "none":
        # Differences of neighbours compress better than pixels: 2 is for integers, 3 for floats.
        options["predictor"] = 3 if dtype.kind == "f" else 2
    return options


def _jpeg_options(dtype: np.dtype[Any], count: int, labels: bool) -> dict[str, Any]:
    if labels:
        raise ConfigError("labels cannot be compressed with 'jpeg', which changes values; use 'deflate'")
    if dtype != np.uint8 or count not in (1, 3):
        raise ConfigError(f"'jpeg' takes 8-bit images of 1 or 3 bands, got {count} bands of {dtype}; use 'deflate'")
    return {"jpeg_quality": _JPEG_QUALITY} | ({"photometric": "YCBCR"} if count == 3 else {})


def _copy_pixels(image: Any, output: Any, source: str, report: Progress) -> None:
    size = Size(image.height, image.width)
    _copy_colours(image, output)
    # A read and its write are each within the bound; rows of tiles, so that every tile is written once.
    for window in _windows(size, output.block_shapes[0][0], image):
        place = ((window.top, window.bottom), (window.left, window.right))
        with reading(source, window):
            pixels = image.read(window=place)
        output.write(pixels, window=place)
        report(_WRITING_SHARE * window.bottom / size.height)


def _copy_colours(image: Any, output: Any) -> None:
    """Before the first pixel: afterwards the TIFF's header is on disk and would be written a second time."""
    if image.colorinterp[0] == rasterio.enums.ColorInterp.palette:
        output.write_colormap(1, image.colormap(1))
    elif image.count > 1:
        output.colorinterp = image.colorinterp


def _windows(size: Size, tile: int, image: Any) -> Iterator[Window]:
    row_bytes = tile * image.count * max(np.dtype(dtype).itemsize for dtype in image.dtypes)
    width = max(tile, STRIP_BYTES // row_bytes // tile * tile)
    if image.driver in _SEQUENTIAL:
        width = size.width
    for top in range(0, size.height, tile):
        for left in range(0, size.width, width):
            yield Window(top, left, min(tile, size.height - top), min(width, size.width - left))


def _build_overviews(path: Path, tile: int, labels: bool) -> None:
    with open_dataset(path, "r+") as output:
        factors = [1 << k for k in range(1, len(halvings(Size(*output.shape))))]
        if factors:
            with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(tile), JPEG_QUALITY_OVERVIEW=_JPEG_QUALITY):
                output.build_overviews(factors, Resampling.nearest if labels else Resampling.average)
