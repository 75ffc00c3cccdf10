"""Photographs that are turned when they are shown: as their EXIF orientation or their TIFF tag says."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from foveate.data.readers.base import ImageReader, Known
from foveate.data.readers.location import Location
from foveate.data.readers.pyramid import PyramidReader
from foveate.data.readers.rescaled import Derived
from foveate.geometry import Resolution, Size, Window
from foveate.types import BoolArray, Raster

_TAG = 274
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _JPEG, _SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", 0xDA
_MOST_PARTS = 1 << 17  # of a file, before it is taken for damaged


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

    def __init__(self, inner: PyramidReader, orientation: int) -> None:
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

    @property
    def inner(self) -> PyramidReader:
        """The image as it is stored."""
        return self._inner

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._turn(self._inner._read_level(level, self._turn.stored(window, self.levels[level])))

    def _known_level(self, level: int, window: Window) -> Known:
        pixels, known = self._inner._known_level(level, self._turn.stored(window, self.levels[level]))
        return Known(self._turn(pixels), None if known is None else self._turn(known))

    def valid(self, window: Window) -> BoolArray:
        """Those of the image as it is stored."""
        valid: BoolArray = self._turn(self._inner.valid(self._turn.stored(window, self.size))[None])[0]
        return valid


def as_shown(reader: ImageReader, location: Location) -> ImageReader:
    """An open image, turned where its file says so and it lies at no place on the ground.

    Where there is a place, it is that of the stored pixels, as all programs for maps have it. Files on servers are not
    asked.
    """
    if reader.georeference is not None or not (location.is_local and location.path.is_file()):
        return reader
    orientation = stored_orientation(location) if isinstance(reader, PyramidReader) else 1
    return OrientedReader(reader, orientation) if isinstance(reader, PyramidReader) and orientation != 1 else reader


def stored_orientation(location: Location) -> int:
    """What a TIFF, a PNG or a JPEG says; 1, as it is stored, of all others and where that is damaged."""
    try:
        with location.path.open("rb") as file:
            found = _in_file(file)
    except (OSError, struct.error):
        return 1
    return found if found in _TURNS else 1


def _in_file(file: BinaryIO) -> int:
    head = file.read(8)
    if head[:4] in _TIFF:
        return _in_tiff(file, 0)
    places = _png_exif(file) if head == _PNG else _jpeg_exif(file) if head[:2] == _JPEG else iter(())
    for place in places:
        return _in_tiff(file, place)
    return 1


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


def _in_tiff(file: BinaryIO, start: int) -> int:
    """The orientation in the first directory of a TIFF that begins somewhere in a file; EXIF is stored as one."""
    file.seek(start)
    head = file.read(4)
    order, big = (">" if head[:2] == b"MM" else "<"), head in _TIFF[2:]
    (offset,) = struct.unpack(order + "4xQ" if big else order + "I", file.read(12 if big else 4))
    file.seek(start + offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    size = 20 if big else 12
    for _ in range(min(count, 4096)):
        entry = file.read(size)
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag == _TAG:
            value = entry[12 if big else 8 :]
            return int(struct.unpack(order + ("H" if kind == 3 else "I"), value[: 2 if kind == 3 else 4])[0])
    return 1
