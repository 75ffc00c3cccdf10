"""Arrays as images: in memory, with a pyramid made when it is asked for, or mapped from a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.readers.axes import ImageAxes, pixel_type
from foveate.data.readers.base import OpenOptions
from foveate.data.readers.location import Location
from foveate.data.readers.pyramid import STRIP_BYTES, PyramidReader, known_values
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Georeference, Resolution, Size, Window, ceil_div, halvings
from foveate.types import BoolArray, Raster

_MAGIC = b"\x93NUMPY"


class MemoryPyramid:
    """Levels of an image (bands, H, W); a level's pixel (i, j) is the rounded mean of four pixels of the one below.

    Rounding is half to even, so that levels do not get brighter one after the other. A last odd row or column is
    repeated, so that every other pixel is exact; what is mirrored beyond it lies up to two pixels of the level off.
    Values that mean nothing count in no mean; where all four mean nothing one of them stands.

    Args:
        base: the image.
        valid: (H, W) which of its pixels hold data; None for all.
        nodata: per band the values that mean that there is none.
    """

    def __init__(
        self, base: Raster, valid: BoolArray | None = None, nodata: tuple[tuple[float, ...], ...] = ()
    ) -> None:
        self._levels, self._valid, self._nodata = [base], [valid], nodata
        self.sizes = halvings(Size(*base.shape[1:]))

    def extent(self, level: int) -> Size:
        """Level-0 pixels that a level covers, with the repeated ones."""
        return Size(self.sizes[level].height << level, self.sizes[level].width << level)

    def read_level(self, level: int, window: Window) -> Raster:
        """A view of a window of a level."""
        rows, cols = window.within(Window.of(self.sizes[level]))
        return self._made(level)[0][:, rows, cols]

    def valid(self, level: int, window: Window) -> BoolArray | None:
        """Which pixels of a window of a level hold data, (h, w), as far as `valid` said so."""
        valid = self._made(level)[1]
        return None if valid is None else valid[window.within(Window.of(self.sizes[level]))].copy()

    def _made(self, level: int) -> tuple[Raster, BoolArray | None]:
        while len(self._levels) <= level:
            finer = self._valid[-1]
            self._levels.append(halved(self._levels[-1], finer, self._nodata))
            self._valid.append(None if finer is None else np.logical_or.reduce(_quads(finer[None]))[0])
        return self._levels[level], self._valid[level]

    def close(self) -> None:
        """Let go of the image."""
        self._levels.clear()


def halved(pixels: Raster, valid: BoolArray | None = None, nodata: tuple[tuple[float, ...], ...] = ()) -> Raster:
    """The means of 2 x 2 pixels of (bands, H, W), strip by strip, in the same dtype; see `MemoryPyramid`."""
    bands, height, width = pixels.shape
    result = np.empty((bands, ceil_div(height, 2), ceil_div(width, 2)), pixels.dtype)
    step = max(1, STRIP_BYTES // (bands * width * 8))
    for row in range(0, result.shape[1], step):
        rows = slice(2 * row, 2 * (row + step))
        strip = pixels[:, rows]
        known = known_values(strip, None if valid is None else valid[rows], nodata)
        result[:, row : row + step] = _halved_strip(strip) if known is None else _halved_known(strip, known)
    return result


def _even(strip: Raster) -> Raster:
    """With a last odd row or column repeated."""
    height, width = strip.shape[-2:]
    return np.pad(strip, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge") if height % 2 or width % 2 else strip


def _quads(strip: Raster) -> Raster:
    """The four pixels of each 2 x 2 of (bands, h, w): (4, bands, h / 2, w / 2), sides rounded up."""
    even = _even(strip)
    return np.stack([even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def _halved_known(strip: Raster, known: BoolArray) -> Raster:
    pixels, there = _quads(strip), _quads(known)
    count = there.sum(axis=0)
    mean = np.where(there, pixels, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    means: Raster = np.where(count > 0, mean if strip.dtype.kind == "f" else np.rint(mean), pixels[0])
    return means.astype(strip.dtype)


def _halved_strip(strip: Raster) -> Raster:
    strip = _even(strip)
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


class ArrayReader(PyramidReader):
    """Reads windows of an array; the array is not copied, its pyramid is made when first needed.

    Args:
        array: (bands, H, W) or (H, W), of real numbers.
        name: what to call it in messages.
        georeference: its place on the ground, if known.
        resolution: size of a pixel in metres, if known.

    Raises:
        UnsupportedImageError: when the array has another number of axes, an empty axis or complex values.
    """

    format = "array"
    handles = 0

    def __init__(
        self,
        array: Raster,
        name: str = "<array>",
        georeference: Georeference | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
            raise UnsupportedImageError(
                f"an image must be a non-empty array (H, W) or (bands, H, W) of real numbers, "
                f"got shape {array.shape} of {array.dtype}"
            )
        base = array if array.ndim == 3 else array[None]
        # Tensors have the machine's byte order, and a mean of truth values is not one.
        base = base.astype("uint8" if base.dtype.kind == "b" else base.dtype.newbyteorder("="), copy=False)
        self._pyramid: MemoryPyramid | None = MemoryPyramid(base)
        self.path, self.georeference, self.resolution = Path(name), georeference, resolution
        self.bands, self.dtype = base.shape[0], base.dtype
        self.size, self.levels = Size(*base.shape[1:]), self._pyramid.sizes
        self.masked, self.resident_bytes = base.dtype.kind == "f", base.nbytes

    def _extent(self, level: int) -> Size:
        return self._open().extent(level)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._open().read_level(level, window)

    def _open(self) -> MemoryPyramid:
        if self._pyramid is None:
            raise ValueError(f"{self.path} is closed")
        return self._pyramid

    def close(self) -> None:
        """Let go of the array."""
        self._pyramid = None


class NumpyReader(PyramidReader):
    """Reads windows of an array in a `.npy` file: (H, W), (H, W, bands) or (bands, H, W).

    Of three axes the shortest, which must be the first or the last, is that of the bands. There is no pyramid: wide
    views read every pixel.

    Args:
        location: the file.

    Raises:
        ImageReadError: when the file is shorter than its header says.
        UnsupportedImageError: when it is no image, or holds Python objects.
    """

    format = "NPY"

    def __init__(self, location: Location) -> None:
        self.path = location.path
        self._array: Raster | None = _mapped(location)
        self._axes = ImageAxes.guessed(self._array.shape, str(location))
        self.bands, self.dtype = self._axes.bands(self._array.shape), pixel_type(self._array.dtype, str(location))
        self.size: Size = self._axes.size(self._array.shape)
        self.levels, self.masked = (self.size,), self.dtype.kind == "f"

    def _read_level(self, level: int, window: Window) -> Raster:
        if self._array is None:
            raise ValueError(f"{self.path} is closed")
        part = self._axes.ordered(self._array[self._axes.index(window)])
        return np.array(part, self.dtype, order="C", subok=False)

    def close(self) -> None:
        """Let go of the map."""
        self._array = None


def _mapped(location: Location) -> np.memmap[Any, Any]:
    try:
        array: np.memmap[Any, Any] = np.load(location.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OverflowError) as error:
        if isinstance(error, OverflowError) or "mmap length" in str(error):
            raise ImageReadError(f"could not read {location}: {error}; the file is damaged or incomplete") from error
        raise UnsupportedImageError(f"NumPy cannot open {location}: {error}") from None
    return array


def open_numpy(location: Location, options: OpenOptions) -> NumpyReader | None:
    """The registry's entry: None when the file does not begin as a `.npy` file does."""
    del options
    if not location.is_local or not location.path.is_file():
        return None
    with location.path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
    return NumpyReader(location)
