"""The reader contract: what every image file looks like to the rest of the library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from foveate.geometry import Size, Window
from foveate.types import BoolArray, Raster


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where an image lies on the ground.

    Attributes:
        crs: coordinate reference system as WKT; empty when the file gives a transform only.
        transform: (a, b, c, d, e, f) with x = a col + b row + c and y = d col + e row + f, for corners of pixels.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    def coarser(self, downsample: float) -> Georeference:
        """The same place on a grid whose pixels are `downsample` level-0 pixels wide; the upper left corner stays."""
        return self.scaled(downsample, downsample)

    def scaled(self, rows: float, cols: float) -> Georeference:
        """The same place on a grid whose pixels are so many level-0 pixels high and wide."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a * cols, b * rows, c, d * cols, e * rows, f))


@dataclass(frozen=True, slots=True)
class Resolution:
    """How large a pixel of level 0 is on the ground or on the glass.

    Attributes:
        row: its height in metres.
        col: its width in metres.
    """

    row: float
    col: float

    @classmethod
    def known(cls, row: float, col: float) -> Resolution | None:
        """The resolution, or None when a number is not positive and finite: files hold zeros for what is not known."""
        return cls(row, col) if 0 < row < math.inf and 0 < col < math.inf else None

    def scaled(self, rows: float, cols: float) -> Resolution:
        """Of a grid whose pixels are so many level-0 pixels high and wide."""
        return Resolution(self.row * rows, self.col * cols)


class Known(NamedTuple):
    """Pixels, and which of them mean something.

    Attributes:
        pixels: (bands, h, w); where `known` is false they hold anything.
        known: (bands, h, w); None when all values mean something.
    """

    pixels: Raster
    known: BoolArray | None


@runtime_checkable
class ImageReader(Protocol):
    """Reads windows of an image that is too large to load.

    A reader belongs to one process and one thread: file handles are neither shared nor locked. Every implementation
    passes the tests in `tests/data/test_reader_contract.py`.

    Attributes:
        path: the file. Of an image in memory or of a URL a path that names no file; its stem names results.
        location: what messages call it: the path or URL it was opened from.
        format: short name of the file format, for example "GTiff" or "PNG".
        size: size of level 0.
        stored_size: that of the file, where it is read as if its pixels had another size; else `size`.
        bands: number of bands that `read` returns; an alpha band is left out unless it was asked for.
        alpha: whether the file has an alpha band.
        masked: whether pixels may hold no data: by a nodata value, a mask, an alpha band, or as floats that are not
            finite.
        palette: whether the pixels are indices into a colour table.
        dtype: type of the pixels in the file, and of what `read` returns.
        levels: sizes of the stored pyramid, finest first; `levels[0] == size`.
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
    alpha: bool
    masked: bool
    palette: bool
    dtype: np.dtype[Any]
    levels: tuple[Size, ...]
    band_names: tuple[str, ...]
    scaling: tuple[tuple[float, float], ...]
    remarks: tuple[str, ...]
    georeference: Georeference | None
    resolution: Resolution | None
    random_access: bool
    resident_bytes: int
    handles: int

    @property
    def location(self) -> str:
        """What messages call it; see the attributes."""
        ...

    @property
    def stored_size(self) -> Size:
        """Size of level 0 in the file; see the attributes."""
        ...

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
        ...

    def read_known(self, window: Window, size: Size | None = None) -> Known:
        """As `read`, but each mean is taken over the values that mean something, and which pixels have one is told.

        Raises:
            ImageReadError: when the file is damaged.
        """
        ...

    def valid(self, window: Window) -> BoolArray:
        """Whether the pixels of a window inside the image hold data, (height, width); all do where not `masked`.

        Raises:
            ImageReadError: when the file is damaged.
        """
        ...

    def close(self) -> None:
        """Release handles and memory; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
