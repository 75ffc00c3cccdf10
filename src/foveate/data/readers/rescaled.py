"""An image read as if its finest level had pixels of another size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from foveate.data.readers.base import ImageReader, Known
from foveate.data.readers.pyramid import PyramidReader
from foveate.errors import UnsupportedImageError
from foveate.geometry import Resolution, Size, Window, ceil_div
from foveate.patches.resample import window_taps
from foveate.types import BoolArray, Raster

# A stored level this much coarser than asked for is taken as it is, as pyramids round their sizes.
_TOLERANCE = 1.01


class Derived(PyramidReader):
    """What a reader on top of another takes over from it; closing it closes the other."""

    def __init__(self, inner: PyramidReader, size: Size, resolution: Resolution | None = None) -> None:
        self._inner, self.size = inner, size
        self.path, self.format, self.dtype, self.bands = inner.path, inner.format, inner.dtype, inner.bands
        self.alpha, self.masked, self.palette = inner.alpha, inner.masked, inner.palette
        self.nodata, self.band_names, self.scaling, self.remarks = (
            inner.nodata,
            inner.band_names,
            inner.scaling,
            inner.remarks,
        )
        self.random_access, self.resident_bytes, self.handles = inner.random_access, inner.resident_bytes, inner.handles
        rows, cols = inner.size.height / size.height, inner.size.width / size.width
        self.georeference = inner.georeference and inner.georeference.scaled(rows, cols)
        known = resolution or inner.resolution
        self.resolution = known and known.scaled(rows, cols)

    @property
    def location(self) -> str:
        """That of the other."""
        return self._inner.location

    @property
    def stored_size(self) -> Size:
        """That of the other."""
        return self._inner.stored_size

    def valid(self, window: Window) -> BoolArray:
        """Those of the other under the centres of the pixels."""
        result = np.empty((1, window.height, window.width), np.bool_)
        valid: BoolArray = self._picked(result, window, lambda area: self._inner.valid(area)[None])[0]
        return valid

    def _picked(self, result: Raster, window: Window, read: Callable[[Window], Raster]) -> Raster:
        """The pixels of the other under the centres of those of a window, strip by strip."""
        rows = _under_centres(window.top, window.height, self.size.height, self._inner.size.height)
        cols = _under_centres(window.left, window.width, self.size.width, self._inner.size.width)
        left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
        span = (int(rows[-1] - rows[0]) + 1) * width * len(result) * result.itemsize
        step = max(1, window.height // ceil_div(span, self.strip_bytes))
        for start in range(0, window.height, step):
            part = rows[start : start + step]
            top = int(part[0])
            pixels = read(Window(top, left, int(part[-1]) - top + 1, width))
            result[:, start : start + step] = pixels[:, part - top][:, :, cols - left]
        return result

    def close(self) -> None:
        """Close the other."""
        self._inner.close()


class RescaledReader(Derived):
    """The image that another one would be on a grid of another size; every pixel is the mean over its footprint.

    It is made as it is read, from the coarsest stored level that is fine enough; coarser stored levels stay levels.
    Where the grid is finer than the image, pixels are repeated.

    Args:
        inner: any reader of this package.
        size: height and width of the new level 0.
        resolution: of the inner's level 0, where it is known better than by the inner.
    """

    def __init__(self, inner: PyramidReader, size: Size, resolution: Resolution | None = None) -> None:
        super().__init__(inner, size, resolution)
        sides = [self._scaled(inner._extent(level)) for level in range(len(inner.levels))]
        factors = [max(e.height / s.height, e.width / s.width) for e, s in zip(sides, inner.levels, strict=True)]
        self._base = max((level for level, factor in enumerate(factors) if factor <= _TOLERANCE), default=0)
        kept = [level for level in range(self._base + 1, len(sides)) if factors[level] > 1]
        self._sources, self._extents = (self._base, *kept), (size, *(sides[level] for level in kept))
        self._base_extent = size if self._base == 0 else sides[self._base]
        self.levels = (size, *(inner.levels[level] for level in kept))

    def _scaled(self, extent: Size) -> Size:
        """An extent in pixels of the inner level 0, in those of the new one."""
        rows, cols = self.size.height / self._inner.size.height, self.size.width / self._inner.size.width
        return Size(max(1, round(extent.height * rows)), max(1, round(extent.width * cols)))

    def _extent(self, level: int) -> Size:
        return self._extents[level]

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._at(level, window, lambda stored, part: Known(self._inner._read_level(stored, part), None)).pixels

    def _known_level(self, level: int, window: Window) -> Known:
        return self._at(level, window, self._inner._known_level)

    def _at(self, level: int, window: Window, read: Callable[[int, Window], Known]) -> Known:
        if level > 0:
            return read(self._sources[level], window)
        plan = window_taps(window, window.size, self._base_extent, self._inner.levels[self._base])
        return self._resampled(partial(read, self._base), plan, window.size)


class FilledReader(Derived):
    """An image with a value in every place: what means nothing counts in no mean and is replaced.

    Args:
        inner: any reader of this package.
        fill: per band what stands where no value is known.
    """

    def __init__(self, inner: PyramidReader, fill: Sequence[float]) -> None:
        super().__init__(inner, inner.size)
        self.levels = inner.levels
        values = np.array(fill, np.float64)[:, None, None]
        if self.dtype.kind in "ui":
            values = np.rint(np.clip(values, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max))
        self._fill = values.astype(self.dtype)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._filled(self._inner._known_level(level, window))

    def read(self, window: Window, size: Size | None = None) -> Raster:
        """Those of the other, with what means nothing replaced."""
        return self._filled(self._inner.read_known(window, size))

    def read_known(self, window: Window, size: Size | None = None) -> Known:
        """Those of the other."""
        return self._inner.read_known(window, size)

    def valid(self, window: Window) -> BoolArray:
        """Those of the other."""
        return self._inner.valid(window)

    def _filled(self, found: Known) -> Raster:
        return found.pixels if found.known is None else np.where(found.known, found.pixels, self._fill)


def _under_centres(start: int, count: int, length: int, inner: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Inner positions under the centres of pixels, in whole numbers so that no window decides otherwise."""
    return (2 * np.arange(start, start + count, dtype=np.int64) + 1) * inner // (2 * length)


def size_at(reader: ImageReader, resolution: Resolution, pixel_size: float) -> Size:
    """Size of an image on a grid of square pixels.

    Args:
        reader: the image.
        resolution: its own.
        pixel_size: side of the new pixels in metres.
    """
    rows = round(reader.size.height * resolution.row / pixel_size)
    cols = round(reader.size.width * resolution.col / pixel_size)
    return Size(max(1, rows), max(1, cols))


def resized(reader: ImageReader, size: Size, resolution: Resolution | None = None) -> ImageReader:
    """The same image on a grid of this size; itself where that is its size already.

    Args:
        reader: of an image; belongs to the result.
        size: of the new level 0.
        resolution: of the reader's level 0, where it is known better than by the reader.

    Raises:
        UnsupportedImageError: when the reader is none of this package.
    """
    if reader.size == size:
        return reader
    if not isinstance(reader, PyramidReader):
        raise UnsupportedImageError(
            f"{reader.location} is read by {type(reader).__name__}, which does not support other pixel sizes; derive "
            "the reader from PyramidReader, or remove data.pixel_size"
        )
    return RescaledReader(reader, size, resolution)
