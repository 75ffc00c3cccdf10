"""Rectangles and grids in level-0 pixels, integers, (row, column) order; where they lie; arrays of pixels. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.errors import GeometryError

Raster: TypeAlias = NDArray[Any]  # (bands, height, width), in the dtype of the file
Array: TypeAlias = NDArray[Any]
BoolArray: TypeAlias = NDArray[np.bool_]
ByteArray: TypeAlias = NDArray[np.uint8]
# (height, width), class ids and ignore_index; of overlapping classes int32, see `foveate.membership`
LabelArray: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

IGNORE = 255  # label of pixels that count nowhere

# Of geometry: those of the image's pixels, of its coordinate reference system, or longitude and latitude.
Coordinates: TypeAlias = Literal["auto", "pixels", "crs", "lonlat"]


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels, both at least 1."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise GeometryError(f"a size must be at least 1 x 1, got {self.height} x {self.width}")

    @classmethod
    def square(cls, side: int) -> Self:
        """The size `side` x `side`."""
        return cls(side, side)

    def scaled(self, rows: float, cols: float) -> Size:
        """So many times as high and as wide, in whole pixels, at least one each."""
        return Size(max(1, round(self.height * rows)), max(1, round(self.width * cols)))

    def reduces_to(self, level: Size) -> bool:
        """Whether a level of a pyramid may show the same: the factors of its sides differ only as they are rounded."""
        down, across = self.height / level.height, self.width / level.width
        return abs(down - across) <= 1.01 * max(down / level.height, across / level.width)

    @property
    def text(self) -> str:
        """Width and height, in words."""
        return f"{self.width} x {self.height}"

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.pixels / 1e6


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle `[top, top + height) x [left, left + width)` in level-0 pixels; it may reach outside the image."""

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise GeometryError(f"a window must be at least 1 x 1 pixels, got {self.height} x {self.width}")

    @classmethod
    def of(cls, size: Size) -> Self:
        """The window that covers a whole image of this size."""
        return cls(0, 0, size.height, size.width)

    @property
    def bottom(self) -> int:
        """First row below the window."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column right of the window."""
        return self.left + self.width

    @property
    def size(self) -> Size:
        """Height and width."""
        return Size(self.height, self.width)

    def centred(self, side: int) -> Window:
        """The square of this side around the same centre (half a pixel up and left when the parities differ)."""
        return Window(self.top + (self.height - side) // 2, self.left + (self.width - side) // 2, side, side)

    def intersection(self, other: Window) -> Window | None:
        """The common part, or None when the windows do not meet."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        if top >= bottom or left >= right:
            return None
        return Window(top, left, bottom - top, right - left)

    def contains(self, other: Window) -> bool:
        """Whether `other` lies wholly inside."""
        return self.intersection(other) == other

    def aligned(self, step: int) -> Window:
        """The smallest window around this one whose corners are multiples of `step`."""
        top, left = self.top // step * step, self.left // step * step
        return Window(top, left, ceil_to(self.bottom, step) - top, ceil_to(self.right, step) - left)

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last row, and column, half-open, as rasterio names windows."""
        return (self.top, self.bottom), (self.left, self.right)

    def centres(self, size: Size) -> tuple[IntArray, IntArray]:
        """The rows and columns under the centres of the pixels of a picture of this size that shows the window."""
        rows, cols = (
            start + ((2 * np.arange(count) + 1) * length) // (2 * count)
            for start, length, count in ((self.top, self.height, size.height), (self.left, self.width, size.width))
        )
        return rows, cols

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Row and column slices of this window in an array that holds `outer`."""
        top, left = self.top - outer.top, self.left - outer.left
        return slice(top, top + self.height), slice(left, left + self.width)


@dataclass(frozen=True, slots=True)
class CellGrid:
    """The grid of decisions: `ceil(H / s) x ceil(W / s)` cells, so that every pixel belongs to exactly one."""

    image: Size  # size of the image, level-0 pixels
    cell: int  # side s of a cell, level-0 pixels; equals the overview's downsample

    def __post_init__(self) -> None:
        if self.cell < 1:
            raise GeometryError(f"the overview downsample must be at least 1, got {self.cell}")

    @property
    def rows(self) -> int:
        """Number of rows of cells."""
        return ceil_div(self.image.height, self.cell)

    @property
    def cols(self) -> int:
        """Number of columns of cells."""
        return ceil_div(self.image.width, self.cell)

    def window(self, row: int, col: int) -> Window:
        """The full cell (row, col), which at the lower and right border may reach outside the image."""
        return Window(row * self.cell, col * self.cell, self.cell, self.cell)


def windows_over(size: Size, height: int, width: int) -> Iterator[Window]:
    """Disjoint windows of at most this height and width that cover an image, row by row."""
    for top in range(0, size.height, height):
        for left in range(0, size.width, width):
            yield Window(top, left, min(height, size.height - top), min(width, size.width - left))


def diagonal(size: Size, count: int, side: int) -> Iterator[Window]:
    """So many windows of at most this side, evenly spread along the diagonal of an image."""
    height, width = min(side, size.height), min(side, size.width)
    for share in np.linspace(0, 1, count):
        yield Window(int(share * (size.height - height)), int(share * (size.width - width)), height, width)


def ceil_div(value: int, step: int) -> int:
    """Smallest integer not below value / step."""
    return -(-value // step)


def ceil_to(value: int, step: int) -> int:
    """Smallest multiple of step not below value."""
    return ceil_div(value, step) * step


def tile_starts(length: int, side: int, stride: int) -> range:
    """Starts of the tiles of this side and stride that together cover [0, length); the last may reach beyond."""
    if not 0 < stride <= side:
        raise GeometryError(f"a stride must be from 1 to the tile side {side}, got {stride}")
    return range(0, stride * (max(0, ceil_div(length - side, stride)) + 1), stride)


# Polygons are drawn on pixels that lie this much lower, as GDAL counts a centre on a steep border of two polygons to
# the left one, but on a level border to both. More than the rounding of coordinates, and less than anybody draws.
LOWER = 2.0**-28
# Where pyramids end: smaller levels are read from this one.
SMALLEST_LEVEL = 256


def halvings(size: Size, longest: int = SMALLEST_LEVEL) -> tuple[Size, ...]:
    """Sizes of the levels of a 2x pyramid, each half of the one before, rounded up, until no side is longer."""
    sizes = [size]
    while max(sizes[-1].height, sizes[-1].width) > longest:
        sizes.append(Size(ceil_div(sizes[-1].height, 2), ceil_div(sizes[-1].width, 2)))
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where an image lies on the ground."""

    crs: str  # coordinate reference system as WKT; empty when the file gives a transform only
    # (a, b, c, d, e, f) with x = a col + b row + c and y = d col + e row + f, for corners of pixels
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
    """How large a pixel of level 0 is on the ground or on the glass."""

    row: float  # its height in metres
    col: float  # its width in metres

    @classmethod
    def known(cls, row: float, col: float) -> Resolution | None:
        """The resolution, or None when a number is not positive and finite: files hold zeros for what is not known."""
        return cls(row, col) if 0 < row < math.inf and 0 < col < math.inf else None

    def scaled(self, rows: float, cols: float) -> Resolution:
        """Of a grid whose pixels are so many level-0 pixels high and wide."""
        return Resolution(self.row * rows, self.col * cols)
