"""Readers on top of another: of pixels of another size, with a value everywhere, turned as the file says."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from foveate.data.readers._gdal_checks import TIFF, tiff_directories
from foveate.data.readers.base import Address, Known
from foveate.data.readers.pyramid import ImageReader, strips
from foveate.geometry import Resolution, Size, Window
from foveate.patches.extraction import window_taps
from foveate.types import BoolArray, IntArray, Raster

# A stored level this much coarser than asked for is taken as it is, as pyramids round their sizes.
_TOLERANCE = 1.01
_TAG = 274
_PNG, _JPEG, _SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", 0xDA
_MOST_PARTS = 1 << 17  # of a file, before it is taken for damaged
_TAKEN_OVER = (
    "path", "format", "dtype", "bands", "alpha", "masked", "palette", "nodata", "band_names", "scaling", "remarks",
    "random_access", "resident_bytes", "handles",
)  # fmt: skip


class Derived(ImageReader):
    """What a reader on top of another takes over from it; closing it closes the other."""

    def __init__(self, inner: ImageReader, size: Size, resolution: Resolution | None = None) -> None:
        self._inner, self.size = inner, size
        for name in _TAKEN_OVER:
            setattr(self, name, getattr(inner, name))
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
        rows = _under_centres(window.top, window.height, self.size.height, self._inner.size.height)
        cols = _under_centres(window.left, window.width, self.size.width, self._inner.size.width)
        left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
        result = np.empty((window.height, window.width), np.bool_)
        for part in strips(rows, width):
            top = int(rows[part][0])
            found = self._inner.valid(Window(top, left, int(rows[part][-1]) - top + 1, width))
            result[part] = found[np.ix_(rows[part] - top, cols - left)]
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

    def __init__(self, inner: ImageReader, size: Size, resolution: Resolution | None = None) -> None:
        super().__init__(inner, size, resolution)
        # Extents of the levels, in pixels of the new level 0.
        rows, cols = size.height / inner.size.height, size.width / inner.size.width
        sides = [inner._extent(level).scaled(rows, cols) for level in range(len(inner.levels))]
        factors = [max(e.height / s.height, e.width / s.width) for e, s in zip(sides, inner.levels, strict=True)]
        self._base = max((level for level, factor in enumerate(factors) if factor <= _TOLERANCE), default=0)
        kept = [level for level in range(self._base + 1, len(sides)) if factors[level] > 1]
        self._sources, self._extents = (self._base, *kept), (size, *(sides[level] for level in kept))
        self._base_extent = size if self._base == 0 else sides[self._base]
        self.levels = (size, *(inner.levels[level] for level in kept))

    def _extent(self, level: int) -> Size:
        return self._extents[level]

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        if level > 0:
            return self._inner._level(self._sources[level], window, ask)
        plan = window_taps(window, window.size, self._base_extent, self._inner.levels[self._base])
        return self._resampled(lambda part: self._inner._level(self._base, part, ask), plan, window.size)


class FilledReader(Derived):
    """An image with a value in every place: what means nothing counts in no mean and is replaced.

    Args:
        inner: any reader of this package.
        fill: per band what stands where no value is known.
    """

    def __init__(self, inner: ImageReader, fill: Sequence[float]) -> None:
        super().__init__(inner, inner.size)
        self.levels = inner.levels
        values = np.array(fill, np.float64)[:, None, None]
        if self.dtype.kind in "ui":
            values = np.rint(np.clip(values, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max))
        self._fill = values.astype(self.dtype)

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        return self._filled(self._inner._level(level, window, True), ask)

    def _read(self, window: Window, size: Size | None, ask: bool) -> Known:
        return self._filled(self._inner.read_known(window, size), ask)

    def valid(self, window: Window) -> BoolArray:
        """Those of the other."""
        return self._inner.valid(window)

    def _filled(self, found: Known, ask: bool) -> Known:
        """With what means nothing replaced, unless it is asked what does."""
        if ask or found.known is None:
            return found
        return Known(np.where(found.known, found.pixels, self._fill), None)


def _under_centres(start: int, count: int, length: int, inner: int) -> IntArray:
    """Inner positions under the centres of pixels, in whole numbers so that no window decides otherwise."""
    return (2 * np.arange(start, start + count, dtype=np.int64) + 1) * inner // (2 * length)


def size_at(reader: ImageReader, resolution: Resolution, pixel_size: float) -> Size:
    """Size of an image of this resolution on a grid of square pixels of this side, metres."""
    rows = round(reader.size.height * resolution.row / pixel_size)
    cols = round(reader.size.width * resolution.col / pixel_size)
    return Size(max(1, rows), max(1, cols))


def resized(reader: ImageReader, size: Size, resolution: Resolution | None = None) -> ImageReader:
    """The same image on a grid of this size; itself where that is its size already.

    The reader belongs to the result; the resolution is that of its level 0, where it is known better than by it.
    """
    return reader if reader.size == size else RescaledReader(reader, size, resolution)


class _Turn(NamedTuple):
    """What is done to stored pixels, in this order: rows and columns are exchanged, rows and columns reversed."""

    swapped: bool
    rows: bool
    cols: bool

    def __call__(self, pixels: Raster) -> Raster:
        """A view of (bands, h, w)."""
        pixels = pixels.transpose(0, 2, 1) if self.swapped else pixels
        return pixels[:, :: -1 if self.rows else 1, :: -1 if self.cols else 1]

    def size(self, stored: Size) -> Size:
        """Of an image that is stored in this size."""
        return Size(stored.width, stored.height) if self.swapped else stored

    def stored(self, window: Window, size: Size) -> Window:
        """Where a window of an image of this size, as shown, is stored."""
        top = size.height - window.bottom if self.rows else window.top
        left = size.width - window.right if self.cols else window.left
        here = Window(top, left, window.height, window.width)
        return Window(left, top, window.width, window.height) if self.swapped else here


# EXIF 2.32, 4.6.4 A, "Orientation".
_TURNS = {
    2: _Turn(False, False, True), 3: _Turn(False, True, True), 4: _Turn(False, True, False),
    5: _Turn(True, False, False), 6: _Turn(True, False, True), 7: _Turn(True, True, True), 8: _Turn(True, True, False),
}  # fmt: skip


class OrientedReader(Derived):
    """An image as it is shown, not as it is stored.

    Args:
        inner: the image as it is stored.
        orientation: 2 to 8, as EXIF numbers them.
    """

    def __init__(self, inner: ImageReader, orientation: int) -> None:
        turn = _TURNS[orientation]
        super().__init__(inner, inner.size)
        self._turn, self.size = turn, turn.size(inner.size)
        # Levels with a repeated last row would begin with it.
        whole = [level for level in range(len(inner.levels)) if inner._extent(level) == inner.size]
        self._kept = [level for place, level in enumerate(whole) if place == level]
        self.levels = tuple(turn.size(inner.levels[level]) for level in self._kept)
        if self.resolution is not None and turn.swapped:
            self.resolution = Resolution(self.resolution.col, self.resolution.row)
        self.remarks = (*self.remarks, f"it is rotated according to its EXIF orientation, {orientation}")

    @property
    def stored_size(self) -> Size:
        """As it is shown, which is all that anybody else sees."""
        return self.size

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        pixels, known = self._inner._level(level, self._turn.stored(window, self.levels[level]), ask)
        return Known(self._turn(pixels), None if known is None else self._turn(known))

    def valid(self, window: Window) -> BoolArray:
        """Those of the image as it is stored."""
        valid: BoolArray = self._turn(self._inner.valid(self._turn.stored(window, self.size))[None])[0]
        return valid


def as_shown(reader: ImageReader, location: Address) -> ImageReader:
    """An open image, turned where its file says so and it lies at no place on the ground.

    Where there is a place, it is that of the stored pixels, as all programs for maps have it. Files on servers are not
    asked.
    """
    placed = reader.georeference is not None or not (location.is_local and location.path.is_file())
    orientation = 1 if placed else stored_orientation(location)
    return reader if orientation == 1 else OrientedReader(reader, orientation)


def stored_orientation(location: Address) -> int:
    """What a TIFF, a PNG or a JPEG says; 1, as it is stored, of all others and where that is damaged."""
    try:
        with location.path.open("rb") as file:
            found = _in_file(file)
    except (OSError, struct.error, KeyError, ValueError):
        return 1
    return found if found in _TURNS else 1


def _in_file(file: BinaryIO) -> int:
    head = file.read(8)
    places = _png_exif(file) if head == _PNG else _jpeg_exif(file) if head[:2] == _JPEG else iter(())
    place = 0 if head[:4] in TIFF else next(places, None)  # EXIF is stored as a TIFF
    if place is None:
        return 1
    found = next(tiff_directories(file, (_TAG,), place), {}).get(_TAG)
    return int(found[0]) if found is not None and found.size else 1


def _png_exif(file: BinaryIO) -> Iterator[int]:
    """Where the chunks with EXIF begin."""
    place = len(_PNG)
    for _ in range(_MOST_PARTS):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"eXIf":
            yield place + 8
        if kind == b"IEND":
            return
        place += length + 12


def _jpeg_exif(file: BinaryIO) -> Iterator[int]:
    """Where the segments with EXIF begin, before the pixels."""
    place = 2
    for _ in range(_MOST_PARTS):
        file.seek(place)
        mark, marker, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF or marker == _SCAN:
            return
        if marker == 0xE1 and file.read(6) == b"Exif\0\0":
            yield place + 10
        place += length + 2
