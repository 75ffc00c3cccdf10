"""Class ids at any scale: picked, never blended, from the stored level that is nearest to the scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from foveate.data.readers.base import ImageReader
from foveate.data.readers.pyramid import STRIP_BYTES, PyramidReader
from foveate.geometry import Size, Window, ceil_div
from foveate.types import IntArray, Raster


def read_nearest(reader: ImageReader, window: Window, size: Size, bands: Sequence[int] = (0,)) -> Raster:
    """Some bands of a window, each value the one under the centre of its pixel.

    The levels of a tiled file are trusted to be picked too, as those of class maps are. PNG and JPEG have none but the
    means of this library's readers, so that of them level 0 is read.

    Args:
        reader: of class ids.
        window: level-0 pixels; beyond the border the last pixel is repeated.
        size: height and width of the result, at most the window's own.
        bands: which, from 0.

    Returns:
        (bands, height, width), in the file's dtype.
    """
    read, extent = _source(reader, min(window.height / size.height, window.width / size.width))
    rows = _under(window.top, window.height, size.height, extent.height / reader.size.height, extent.height)
    cols = _under(window.left, window.width, size.width, extent.width / reader.size.width, extent.width)
    result = np.empty((len(bands), size.height, size.width), reader.dtype)
    left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
    for part in _strips(rows, width * reader.bands * reader.dtype.itemsize):
        top = int(rows[part][0])
        pixels = read(Window(top, left, int(rows[part][-1]) - top + 1, width))
        result[:, part] = pixels[np.ix_(np.asarray(bands), rows[part] - top, cols - left)]
    return result


def _source(reader: ImageReader, downsample: float) -> tuple[Callable[[Window], Raster], Size]:
    """How to read windows of the coarsest level that is fine enough, and that level's size."""
    if not isinstance(reader, PyramidReader) or not reader.random_access:
        return reader.read, reader.size
    levels, finest = reader.levels, reader.size.width
    # 1% off is allowed, as pyramids round their sizes.
    level = max(i for i, size in enumerate(levels) if i == 0 or finest / size.width <= 1.01 * downsample)
    return lambda window: reader._read_level(level, window), levels[level]


def _under(start: int, length: int, count: int, scale: float, limit: int) -> IntArray:
    """Positions in the level under the centres of the pixels of the result."""
    centres = start + (np.arange(count) + 0.5) * (length / count)
    positions: IntArray = np.clip(np.floor(centres * scale).astype(np.int64), 0, limit - 1)
    return positions


def _strips(rows: NDArray[np.int64], row_bytes: int) -> Iterator[slice]:
    """Parts of the result whose source stays small, of a file without levels too."""
    span = (int(rows[-1]) - int(rows[0]) + 1) * row_bytes
    step = max(1, len(rows) // max(1, ceil_div(span, STRIP_BYTES)))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)
