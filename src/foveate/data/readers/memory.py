"""A 2x pyramid of an image in memory, each level made when it is first asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from foveate.data.readers.pyramid import STRIP_BYTES
from foveate.geometry import Size, Window, ceil_div
from foveate.types import Raster

SMALLEST_LEVEL = 256


def halvings(size: Size) -> tuple[Size, ...]:
    """Sizes of the levels of a 2x pyramid, rounded up, until both sides are at most `SMALLEST_LEVEL`."""
    sizes = [size]
    while max(sizes[-1].height, sizes[-1].width) > SMALLEST_LEVEL:
        sizes.append(Size(ceil_div(sizes[-1].height, 2), ceil_div(sizes[-1].width, 2)))
    return tuple(sizes)


class MemoryPyramid:
    """Levels of an image (bands, H, W); a level's pixel (i, j) is the rounded mean of four pixels of the one below.

    Rounding is half to even, so that levels do not get brighter one after the other. A last odd row or column is
    repeated, so that every other pixel is exact; what is mirrored beyond it lies up to two pixels of the level off.
    """

    def __init__(self, base: Raster) -> None:
        self._levels = [base]
        self.sizes = halvings(Size(*base.shape[1:]))

    def extent(self, level: int) -> Size:
        """Level-0 pixels that a level covers, with the repeated ones."""
        return Size(self.sizes[level].height << level, self.sizes[level].width << level)

    def read_level(self, level: int, window: Window) -> Raster:
        """A view of a window of a level."""
        while len(self._levels) <= level:
            self._levels.append(halved(self._levels[-1]))
        rows, cols = window.within(Window.of(self.sizes[level]))
        return self._levels[level][:, rows, cols]


def halved(pixels: Raster) -> Raster:
    """The means of 2 x 2 pixels of (bands, H, W), strip by strip, in the same dtype."""
    bands, height, width = pixels.shape
    result = np.empty((bands, ceil_div(height, 2), ceil_div(width, 2)), pixels.dtype)
    step = max(1, STRIP_BYTES // (bands * width * 8))
    for row in range(0, result.shape[1], step):
        result[:, row : row + step] = _halved_strip(pixels[:, 2 * row : 2 * (row + step)])
    return result


def _halved_strip(strip: Raster) -> Raster:
    height, width = strip.shape[-2:]
    if height % 2 or width % 2:
        strip = np.pad(strip, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    rows = np.add(strip[:, ::2], strip[:, 1::2], dtype=_sum_type(strip.dtype))
    total = rows[..., ::2] + rows[..., 1::2]
    return _quarter(total, strip.dtype)


def _sum_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A type that holds the sum of four; integers stay integers, which takes a sixth of the time of floats."""
    if dtype.kind in "ui" and dtype.itemsize <= 4:
        return np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    return np.result_type(dtype, np.float32)


def _quarter(total: Raster, dtype: np.dtype[Any]) -> Raster:
    """A fourth in this type; of integers rounded half to even, by the last bit of the floored fourth."""
    if total.dtype.kind == "f":
        fourth: Raster = total / 4 if dtype.kind == "f" else np.rint(total / 4)
    else:
        fourth = (total + ((total >> 2) & 1) + 1) >> 2
    return fourth.astype(dtype)
