"""`PyramidReader`: everything about reading a window but the file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from foveate.data.readers.base import Georeference, Resolution
from foveate.geometry import Size, Window, ceil_div
from foveate.patches.resample import Taps, WindowTaps, resample, to_dtype, window_taps
from foveate.types import BoolArray, Raster

STRIP_BYTES = 64 << 20
# Types torch cannot index or add; the wider one holds every value.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "bool": np.uint8}


class PyramidReader(ABC):
    """An `ImageReader` that lacks only opening and `_read_level`.

    A subclass sets the attributes of `ImageReader`. A read takes the coarsest level that is still at least as fine as
    the request and takes means of its pixels; a large request is worked off in parts of `strip_bytes`, so that the
    overview of a file without a pyramid does not load the file.

    Limits: 32-bit integers above 2**24 lose their last digits where a mean is taken; a NaN spreads to the means beside
    it.
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
    georeference: Georeference | None = None
    resolution: Resolution | None = None
    random_access: bool = True
    resident_bytes: int = 0
    handles: int = 1
    strip_bytes: int = STRIP_BYTES

    @property
    def location(self) -> str:
        """The path; readers of URLs override it."""
        return str(self.path)

    @property
    def stored_size(self) -> Size:
        """The size; readers on top of another override it."""
        return self.size

    @abstractmethod
    def _read_level(self, level: int, window: Window) -> Raster:
        """Pixels of a window, in pixels of the level and inside it; may be a view, which is never written to."""

    def close(self) -> None:  # noqa: B027 - nothing to release is a valid default
        """Release handles and memory; may be called twice."""

    def valid(self, window: Window) -> BoolArray:
        """Whether the pixels of a window inside the image hold data, (height, width); all, unless overridden."""
        return np.ones((window.height, window.width), np.bool_)

    def _extent(self, level: int) -> Size:
        """Level-0 pixels that the level covers; more than the image when the level was padded to whole pixels."""
        return self.size

    def read(self, window: Window, size: Size | None = None) -> Raster:
        """The pixels of a window, as `ImageReader.read` promises."""
        out = size or window.size
        if out == window.size and Window.of(self.size).contains(window):
            raster = self._read_level(0, window)
            return raster if raster.base is None else raster.copy()
        level = self._level_for(window, out)
        plan = window_taps(window, out, self._extent(level), self.levels[level])
        return self._resampled(partial(self._read_level, level), plan, out)

    def _resampled(self, read: Callable[[Window], Raster], plan: WindowTaps, out: Size) -> Raster:
        """Carry out a plan on what `read` gives, in parts of `strip_bytes`."""
        counts = self._parts_of(plan.needed, out)
        if counts.pixels == 1:
            return self._read_part(read, plan)
        result = np.empty((self.bands, out.height, out.width), self.dtype)
        for rows, cols, part in _parts(plan, counts):
            result[:, rows, cols] = self._read_part(read, part)
        return result

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

    def _read_part(self, read: Callable[[Window], Raster], plan: WindowTaps) -> Raster:
        source = as_tensor(read(plan.needed))
        values = to_dtype(resample(source, plan.rows, plan.cols), source.dtype)
        return values.numpy().astype(self.dtype, copy=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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
