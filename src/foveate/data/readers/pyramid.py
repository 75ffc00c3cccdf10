"""`ImageReader`: everything about reading a window but the file format."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.data.readers.base import Address, Known, NoData, any_band, known_values, representable
from foveate.errors import ImageReadError
from foveate.files import Closing
from foveate.geometry import (
    BoolArray,
    DoubleArray,
    Georeference,
    IntArray,
    Raster,
    Resolution,
    Size,
    Window,
    ceil_div,
    windows_over,
)
from foveate.patches.extraction import Taps, WindowTaps, resample, to_dtype, window_taps

STRIP_BYTES = 64 << 20
# Types torch cannot index or add; the wider one holds every value.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "bool": np.uint8}

_WINDOWS, _SIDE = 4, 64  # windows of an image that are looked at, along each side, and their sides


def are_colours(names: Sequence[str], dtype: np.dtype[Any]) -> bool:
    """Whether bands of these names are red, green and blue; those of bytes also without names."""
    return {*names} == {"red", "green", "blue"} or (dtype == np.uint8 and not any(names))


class ImageReader(Closing):
    """Reads windows of an image that is too large to load.

    A reader belongs to one process and one thread: file handles are neither shared nor locked. A subclass opens the
    file, sets the attributes and writes `_read_level`; it passes the tests in `tests/data/test_reader_contract.py`. A
    read takes the coarsest level that is still at least as fine as the request and takes means of its pixels; a large
    request is worked off in parts of `strip_bytes`, so that the overview of a file without a pyramid does not load the
    file.

    Limits: 32-bit integers above 2**24 lose their last digits where a mean is taken.

    Attributes:
        path: the file. Of an image in memory or of a URL a path that names no file; its stem names results.
        format: short name of the file format, for example "GTiff" or "PNG".
        size: size of level 0.
        bands: number of bands that `read` returns; an alpha band is left out unless it was asked for.
        dtype: type of the pixels in the file, and of what `read` returns.
        levels: sizes of the stored pyramid, finest first; `levels[0] == size`.
        alpha: whether the file has an alpha band.
        masked: whether pixels may hold no data: by a nodata value, a mask, an alpha band, or as floats that are not
            finite.
        palette: whether the pixels are indices into a colour table.
        nodata: per band the values that mean that there is none.
        band_names: what the file says of each band, such as "red" or "NIR"; "" where it says nothing.
        scaling: per band a gain and an offset from stored values to what they mean, as the file says; `read` gives
            stored values.
        remarks: what else a user should know of how the file is read, in sentences.
        georeference: place on the ground, when the file knows it.
        resolution: size of a pixel of level 0 in metres, when the file knows it.
        random_access: whether a window is read without decoding the whole file.
        resident_bytes: bytes the reader holds in memory once it was read from.
        handles: files it keeps open.
    """

    path: Path
    format: str
    size: Size
    bands: int
    dtype: np.dtype[Any]
    levels: tuple[Size, ...]
    alpha: bool = False
    masked: bool = False
    palette: bool = False
    nodata: NoData = ()
    band_names: tuple[str, ...] = ()
    scaling: tuple[tuple[float, float], ...] = ()
    remarks: tuple[str, ...] = ()
    georeference: Georeference | None = None
    resolution: Resolution | None = None
    random_access: bool = True
    resident_bytes: int = 0
    handles: int = 1
    strip_bytes: int = STRIP_BYTES
    _location: Address | None = None  # what the file was opened from, where that is more than its path
    # Level-0 pixels that each level covers, more than the image where levels were padded; the image when empty.
    _extents: tuple[Size, ...] = ()
    _size_in_file: Size | None = None  # of level 0, where that is not `size`

    @property
    def location(self) -> str:
        """What messages call it: the path or URL it was opened from."""
        return str(self._location or self.path)

    @property
    def stored_size(self) -> Size:
        """Size of level 0 in the file, where it is read as if its pixels had another size; else `size`."""
        return self._size_in_file or self.size

    def also_nodata(self, value: float) -> None:
        """Take a value for one that means that there is none, in every band; before the first read."""
        own = self.nodata or ((),) * self.bands
        self.nodata = tuple((*values, *representable(value, self.dtype)) for values in own)
        self.masked = self.masked or any(self.nodata)

    def _read_level(self, level: int, window: Window) -> Raster:
        """Pixels of a window, in pixels of the level and inside it; may be a view, which is never written to."""
        return self._level(level, window, False).pixels

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        """Where a mask or an alpha band says that there is data, (h, w); None when there is neither."""
        return None

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        """As `_read_level`, and which values mean something, where that is asked for."""
        pixels = self._read_level(level, window)
        return Known(pixels, known_values(pixels, self._marked(level, window), self.nodata) if ask else None)

    def _extent(self, level: int) -> Size:
        return self._extents[level] if self._extents else self.size

    def valid(self, window: Window) -> BoolArray:
        """Whether the pixels of a window inside the image hold data, (height, width): a value in any band.

        Raises:
            ImageReadError: when the file is damaged.
        """
        marked = self._marked(0, window)
        if self.dtype.kind != "f" and not any(self.nodata):
            return np.ones((window.height, window.width), np.bool_) if marked is None else marked
        return any_band(self._level(0, window, True).known, window)

    def read(self, window: Window, size: Size | None = None) -> Raster:
        """The pixels of a window, each the mean of the image over its own footprint.

        Args:
            window: level-0 pixels; it may reach outside the image, where the image is mirrored at its edges (the edge
                pixel is repeated).
            size: height and width of the result; the window's own size when None.

        Returns:
            (bands, height, width) in the file's dtype; means of integers are rounded. The caller owns the array.

        Raises:
            ImageReadError: when the file is damaged.
        """
        return self._read(window, size, False).pixels

    def read_known(self, window: Window, size: Size | None = None) -> Known:
        """As `read`, but each mean is taken over the values that mean something, and which pixels have one is told."""
        return self._read(window, size, True)

    def _read(self, window: Window, size: Size | None, ask: bool) -> Known:
        out = size or window.size
        if out == window.size and Window.of(self.size).contains(window):
            pixels, known = self._level(0, window, ask)
            return Known(pixels if pixels.base is None else pixels.copy(), known)
        asked = 1.01 * min(window.height / out.height, window.width / out.width)  # as pyramids round their sizes
        level = max((k for k in range(1, len(self.levels)) if self._downsample(k) <= asked), default=0)
        plan = window_taps(window, out, self._extent(level), self.levels[level])
        return self._resampled(lambda part: self._level(level, part, ask), plan)

    def _resampled(self, read: Callable[[Window], Known], plan: WindowTaps) -> Known:
        """Carry out a plan on what `read` gives, in parts of `strip_bytes`."""
        out = Size(len(plan.rows.position), len(plan.cols.position))
        # Means are taken in float32, whatever the file holds.
        size = plan.needed.size.pixels * self.bands * max(4, self.dtype.itemsize)
        if size <= self.strip_bytes:
            return self._read_part(read, plan)
        # Rows first, as files are stored by rows.
        height = max(1, out.height * self.strip_bytes // size)
        width = out.width if height > 1 else max(1, out.width * out.height * self.strip_bytes // size)
        result = np.empty((self.bands, out.height, out.width), self.dtype)
        known: BoolArray | None = None
        for part in windows_over(out, height, width):
            rows, cols = part.within(Window.of(out))
            result[:, rows, cols], some = self._read_part(read, _narrowed(plan, rows, cols))
            if some is not None:
                known = np.ones(result.shape, np.bool_) if known is None else known
                known[:, rows, cols] = some
        return Known(result, known)

    def _downsample(self, level: int) -> float:
        extent, size = self._extent(level), self.levels[level]
        return max(extent.height / size.height, extent.width / size.width)

    def _read_part(self, read: Callable[[Window], Known], plan: WindowTaps) -> Known:
        pixels, known = read(plan.needed)
        source = _as_tensor(pixels)
        if known is None:
            values, weight = resample(source, plan.rows, plan.cols), None
        else:
            there = torch.from_numpy(known)
            weight = resample(there.float(), plan.rows, plan.cols)
            total = resample(torch.where(there, source, 0).float(), plan.rows, plan.cols)
            values = total / torch.where(weight > 0, weight, 1)
        result = to_dtype(values, source.dtype).numpy().astype(self.dtype, copy=False)
        return Known(result, None if weight is None else (weight > 0).numpy())


def strips(rows: IntArray, row_bytes: int) -> Iterator[slice]:
    """Parts of some ascending rows whose source stays small, of a file without levels too."""
    span = (int(rows[-1]) - int(rows[0]) + 1) * row_bytes
    step = max(1, len(rows) // max(1, ceil_div(span, STRIP_BYTES)))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def _as_tensor(raster: Raster) -> torch.Tensor:
    """A raster as a tensor, in a type torch computes with; not copied where that can be avoided."""
    if raster.dtype.name in _WIDER:
        return torch.from_numpy(raster.astype(_WIDER[raster.dtype.name]))
    usable = raster.flags.writeable and min(raster.strides) >= 0
    return torch.from_numpy(raster if usable else raster.copy())


def _narrowed(plan: WindowTaps, rows: slice, cols: slice) -> WindowTaps:
    """A part of the output of a plan, with the source it needs."""
    top, height, row_taps = _narrow(plan.rows, rows)
    left, width, col_taps = _narrow(plan.cols, cols)
    return WindowTaps(Window(plan.needed.top + top, plan.needed.left + left, height, width), row_taps, col_taps)


def _narrow(taps: Taps, part: slice) -> tuple[int, int, Taps]:
    index, weight = taps.position[part], taps.weight[part]
    first, last = int(index.min()), int(index.max())
    return first, last - first + 1, Taps(index - first, weight)


def sampled(image: ImageReader, channels: Sequence[int]) -> DoubleArray:
    """Values (C, n) of windows on a regular grid, NaN where there is none."""
    height, width = min(_SIDE, image.size.height), min(_SIDE, image.size.width)
    tops, lefts = (
        np.linspace(0, whole - side, _WINDOWS).astype(int).tolist()
        for whole, side in ((image.size.height, height), (image.size.width, width))
    )
    parts = [np.empty((len(channels), 0))]
    for top, left in product(tops, lefts):
        try:
            pixels, known = image.read_known(Window(top, left, height, width))
        except ImageReadError:  # what is done about a place that cannot be read is decided where it is used
            continue
        values = pixels.astype(np.float64) if known is None else np.where(known, pixels, np.nan)
        parts.append(values[list(channels)].reshape(len(channels), -1))
    return np.concatenate(parts, axis=1)
