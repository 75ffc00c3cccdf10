"""How large an image may be: a damaged or hostile header is refused before anything is done with its numbers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from rasterio.enums import Interleaving

from foveate.data.readers.base import ImageReader
from foveate.errors import ConfigError, UnsupportedImageError

MAX_PIXELS = 10**12
MOST_BLOCK_BYTES = 512 << 20
VARIABLE = "FOVEATE_MAX_PIXELS"


def check_size(reader: ImageReader, max_pixels: int | None = None) -> None:
    """Refuse an image of more pixels than allowed.

    Args:
        reader: the opened image, of which only the header was read.
        max_pixels: most rows times columns; of the environment variable, else `MAX_PIXELS`, when None.

    Raises:
        ConfigError: when the variable holds no positive number.
        UnsupportedImageError: naming the size and how to allow more.
    """
    limit = _from_environment() if max_pixels is None else max_pixels
    if reader.size.pixels > limit:
        raise UnsupportedImageError(
            f"{reader.location} says it is {reader.size.height} x {reader.size.width} pixels, and {limit:.3g} pixels "
            f"are allowed: the header may be damaged. If it is right, set the environment variable {VARIABLE} to a "
            f"larger number, or pass max_pixels to open_image"
        )


def check_blocks(dataset: Any) -> None:
    """Refuse a file whose strips or tiles are too large to be decoded, which is done whole.

    Raises:
        UnsupportedImageError: naming the size and what to do.
    """
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
        size = height * width * np.dtype(dtype).itemsize * together
        if size > MOST_BLOCK_BYTES:
            raise UnsupportedImageError(
                f"{dataset.name} is stored in pieces of {height} x {width} pixels, {size / 2**20:.0f} MiB each, which "
                f"are read whole; at most {MOST_BLOCK_BYTES >> 20} MiB are allowed: store it in tiles, for "
                f"example with gdal_translate -co TILED=YES"
            )


def _from_environment() -> int:
    text = os.environ.get(VARIABLE) or str(MAX_PIXELS)
    try:
        limit = int(float(text))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ConfigError(f"{VARIABLE} is {text!r}; it must be a positive number of pixels, for example 1e12")
    return limit
