"""`PyramidReader`: everything about reading a window but the file format; `MemoryPyramid`: the levels of an array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from foveate.data.readers.base import Address, Known
from foveate.files import Closing
from foveate.geometry import Georeference, Resolution, Size, Window, ceil_div, halvings
from foveate.patches.extraction import Taps, WindowTaps, resample, to_dtype, window_taps
from foveate.types import BoolArray, Raster

NoData: TypeAlias = tuple[tuple[float, ...], ...]  # per band the values that mean that there is none
STRIP_BYTES = 64 << 20
# Floats this large mean that there is no value, as infinity does: what programs write for "none" begins at 1e36.
_NO_VALUE = 1e30
# Types torch cannot index or add; the wider one holds every value.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "bool": np.uint8}


class PyramidReader(Closing, ABC):
    """An `ImageReader` that lacks only opening and `_read_level`.

    A subclass sets the attributes of `ImageReader`. A read takes the coarsest level that is still at least as fine as
    the request and takes means of its pixels; a large request is worked off in parts of `strip_bytes`, so that the
    overview of a file without a pyramid does not load the file.

    Limits: 32-bit integers above 2**24 lose their last digits where a mean is taken.

    Attributes:
        nodata: per band the values that mean that there is none.
    """

    path: Path
    format: str
    size: Size
    bands: int
    alpha: bool = False
    masked: bool = False
    palette: bool = False
    dtype: np.dtype[Any]
    levels: tuple[Size, ...]
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

    @property
    def location(self) -> str:
        """The path or URL; readers on top of another override it."""
        return str(self._location or self.path)

    @property
    def stored_size(self) -> Size:
        """The size; readers on top of another override it."""
        return self.size

    def also_nodata(self, value: float) -> None:
        """Take a value for one that means that there is none, in every band; before the first read."""
        own = self.nodata or ((),) * self.bands
        self.nodata = tuple((*values, *representable(value, self.dtype)) for values in own)
        self.masked = self.masked or any(self.nodata)

    @abstractmethod
    def _read_level(self, level: int, window: Window) -> Raster:
        """Pixels of a window, in pixels of the level and inside it; may be a view, which is never written to."""

    def close(self) -> None:
        """Release handles and memory; may be called twice."""

    def valid(self, window: Window) -> BoolArray:
        """Whether the pixels of a window inside the image hold data, (height, width): a value in any band."""
        marked = self._marked(0, window)
        if self.dtype.kind != "f" and not any(self.nodata):
            return np.ones((window.height, window.width), np.bool_) if marked is None else marked
        return any_band(self._known_level(0, window).known, window)

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        """Where a mask or an alpha band says that there is data, (h, w); None when there is neither."""
        del level, window
        return None

    def _known_level(self, level: int, window: Window) -> Known:
        """As `_read_level`, and which values mean something."""
        pixels = self._read_level(level, window)
        return Known(pixels, known_values(pixels, self._marked(level, window), self.nodata))

    def _extent(self, level: int) -> Size:
        """Level-0 pixels that the level covers; more than the image when the level was padded to whole pixels."""
        return self.size

    def read(self, window: Window, size: Size | None = None) -> Raster:
        """The pixels of a window, as `ImageReader.read` promises."""
        return self._read(window, size, lambda level, part: Known(self._read_level(level, part), None)).pixels

    def read_known(self, window: Window, size: Size | None = None) -> Known:
        """The pixels of a window and which mean something, as `ImageReader.read_known` promises."""
        return self._read(window, size, self._known_level)

    def _read(self, window: Window, size: Size | None, read: Callable[[int, Window], Known]) -> Known:
        out = size or window.size
        if out == window.size and Window.of(self.size).contains(window):
            pixels, known = read(0, window)
            return Known(pixels if pixels.base is None else pixels.copy(), known)
        level = self._level_for(window, out)
        plan = window_taps(window, out, self._extent(level), self.levels[level])
        return self._resampled(partial(read, level), plan, out)

    def _resampled(self, read: Callable[[Window], Known], plan: WindowTaps, out: Size) -> Known:
        """Carry out a plan on what `read` gives, in parts of `strip_bytes`."""
        counts = self._parts_of(plan.needed, out)
        if counts.pixels == 1:
            return self._read_part(read, plan)
        result = np.empty((self.bands, out.height, out.width), self.dtype)
        known: BoolArray | None = None
        for rows, cols, part in _parts(plan, counts):
            result[:, rows, cols], some = self._read_part(read, part)
            if some is not None:
                known = np.ones(result.shape, np.bool_) if known is None else known
                known[:, rows, cols] = some
        return Known(result, known)

    def _level_for(self, window: Window, out: Size) -> int:
        """The coarsest level not coarser than asked for; 1% off is allowed, as pyramids round their sizes."""
        asked = 1.01 * min(window.height / out.height, window.width / out.width)
        fine = [level for level in range(1, len(self.levels)) if self._downsample(level) <= asked]
        return max(fine, default=0)

    def _downsample(self, level: int) -> float:
        extent, size = self._extent(level), self.levels[level]
        return max(extent.height / size.height, extent.width / size.width)

    def _parts_of(self, needed: Window, out: Size) -> Size:
        """Into how many parts a request is split; rows first, as files are stored by rows."""
        # Means are taken in float32, whatever the file holds.
        size = needed.height * needed.width * self.bands * max(4, self.dtype.itemsize)
        rows = min(out.height, ceil_div(size, self.strip_bytes))
        return Size(rows, min(out.width, ceil_div(size, rows * self.strip_bytes)))

    def _read_part(self, read: Callable[[Window], Known], plan: WindowTaps) -> Known:
        pixels, known = read(plan.needed)
        source = as_tensor(pixels)
        if known is None:
            values, weight = resample(source, plan.rows, plan.cols), None
        else:
            there = torch.from_numpy(known)
            weight = resample(there.float(), plan.rows, plan.cols)
            total = resample(torch.where(there, source, 0).float(), plan.rows, plan.cols)
            values = total / torch.where(weight > 0, weight, 1)
        result = to_dtype(values, source.dtype).numpy().astype(self.dtype, copy=False)
        return Known(result, None if weight is None else (weight > 0).numpy())


def known_values(pixels: Raster, marked: BoolArray | None, nodata: NoData) -> BoolArray | None:
    """Which values (bands, h, w) mean something; None when all do."""
    known = None if marked is None else np.broadcast_to(marked, pixels.shape).copy()
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            finite = np.abs(pixels) < _NO_VALUE
        known = finite if known is None else known & finite
    for band, values in enumerate(nodata):
        for value in values:
            known = np.ones(pixels.shape, np.bool_) if known is None else known
            known[band] &= pixels[band] != value
    return None if known is None or known.all() else known


def any_band(known: BoolArray | None, window: Window) -> BoolArray:
    """Whether any band of the pixels of a window has a value, (h, w)."""
    if known is None:
        return np.ones((window.height, window.width), np.bool_)
    there: BoolArray = np.logical_or.reduce(known, axis=0)
    return there


def representable(value: float | None, dtype: np.dtype[Any]) -> tuple[float, ...]:
    """A value as pixels of a type have it; nothing where they cannot, and of NaN, which no pixel equals."""
    if value is None or not np.isfinite(value):
        return ()
    if dtype.kind == "f":
        return (float(value),)
    limits = np.iinfo(dtype)
    return (int(value),) if float(value).is_integer() and limits.min <= value <= limits.max else ()


def as_tensor(raster: Raster) -> Tensor:
    """A raster as a tensor, in a type torch computes with; not copied where that can be avoided."""
    if raster.dtype.name in _WIDER:
        return torch.from_numpy(raster.astype(_WIDER[raster.dtype.name]))
    usable = raster.flags.writeable and min(raster.strides) >= 0
    return torch.from_numpy(raster if usable else raster.copy())


def _parts(plan: WindowTaps, counts: Size) -> Iterator[tuple[slice, slice, WindowTaps]]:
    """A plan cut into parts of the output, each with the source it needs."""
    for rows in _slices(plan.rows.position.shape[0], counts.height):
        top, height, row_taps = _narrow(plan.rows, rows)
        for cols in _slices(plan.cols.position.shape[0], counts.width):
            left, width, col_taps = _narrow(plan.cols, cols)
            needed = Window(plan.needed.top + top, plan.needed.left + left, height, width)
            yield rows, cols, WindowTaps(needed, row_taps, col_taps)


def _slices(length: int, count: int) -> list[slice]:
    bounds = [length * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def _narrow(taps: Taps, part: slice) -> tuple[int, int, Taps]:
    index, weight = taps.position[part], taps.weight[part]
    first, last = int(index.min()), int(index.max())
    return first, last - first + 1, Taps(index - first, weight)


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

    def __init__(self, base: Raster, valid: BoolArray | None = None, nodata: NoData = ()) -> None:
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


def halved(pixels: Raster, valid: BoolArray | None = None, nodata: NoData = ()) -> Raster:
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
    strip, dtype = _even(strip), strip.dtype
    # Integers are added as integers that hold the sum of four, which takes a sixth of the time of floats.
    small = dtype.kind in "ui" and dtype.itemsize <= 4
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}") if small else np.result_type(dtype, np.float32)
    rows = np.add(strip[:, ::2], strip[:, 1::2], dtype=wide)
    total: Raster = rows[..., ::2] + rows[..., 1::2]
    if wide.kind == "f":
        return (total / 4 if dtype.kind == "f" else np.rint(total / 4)).astype(dtype)
    total = (total + ((total >> 2) & 1) + 1) >> 2  # half to even, by the last bit of the floored fourth
    return total.astype(dtype)
