"""Photographs: PNG and JPEG, decoded once, to memory or to a TIFF; and any image turned as its file says."""

import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from foveate.data.readers._gdal_checks import TIFF, tiff_directories
from foveate.data.readers.base import PLAIN, Address, Known, OpenOptions, first_bytes
from foveate.data.readers.derived import Derived
from foveate.data.readers.gdal import GdalReader, georeference_of, open_dataset, read_valid, reading, resolution_of
from foveate.data.readers.pyramid import ImageReader, MemoryPyramid
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.files import TemporaryFolder, written
from foveate.geometry import Resolution, Size, Window, halvings
from foveate.tiff.raster import TiffSource, write_plain_pyramid
from foveate.types import BoolArray, Raster

_log = logging.getLogger(__name__)
# They decode from the first row on: reading part of a row and coming back would decode it all again.
_DRIVERS = ("PNG", "JPEG")
_PNG, _JPEG, _SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", 0xDA
_MAGIC = (_PNG, b"\xff\xd8\xff")
_TAG = 274
_MOST_PARTS = 1 << 17  # of a file, before it is taken for damaged


def source_of_dataset(dataset: Any, name: str) -> TiffSource:
    """All that an open rasterio dataset holds: bands, colours, mask, place. It stays open as long as that is used."""

    def read(window: Window) -> Raster:
        with reading(name, window):
            pixels: Raster = dataset.read(window=window.ranges)
        return pixels

    place, _ = georeference_of(dataset)
    flags = dataset.mask_flag_enums[0]
    masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    return TiffSource(
        Size(dataset.height, dataset.width),
        dataset.count,
        np.result_type(*dataset.dtypes),
        read,
        dataset.driver in _DRIVERS,
        (lambda window: read_valid(dataset, window)) if masked else None,
        dataset.nodata,
        place,
        resolution_of(dataset, place),
        lambda output: _copy_colours(dataset, output),
    )


def write_plain(location: Address, destination: Path) -> None:
    """Decode a file that GDAL reads into a tiled TIFF that is fast to read, and is not kept."""
    with reading(str(location)), open_dataset(location) as image, written(destination) as partial:
        write_plain_pyramid(source_of_dataset(image, str(location)), partial)


def _copy_colours(image: Any, output: Any) -> None:
    output.descriptions = image.descriptions
    output.scales, output.offsets = image.scales, image.offsets
    if image.colorinterp[0] == rasterio.enums.ColorInterp.palette:
        output.write_colormap(1, image.colormap(1))
    elif image.count > 1:
        output.colorinterp = image.colorinterp


class DecodedReader(GdalReader):
    """Decodes the file at the first read and keeps it, in memory or, when it is large, in a temporary tiled TIFF."""

    random_access = False
    handles = 0

    def __init__(self, location: Address, options: OpenOptions = PLAIN) -> None:
        self.path, self._location, self._options = location.path, location, options
        self._store: MemoryPyramid | RasterioReader | None = None
        self._folder: TemporaryFolder | None = None
        with open_dataset(location) as dataset:
            self._describe(dataset, options)
        self.levels = halvings(self.size)
        decoded = self.size.pixels * self.bands * self.dtype.itemsize
        self._in_memory = decoded <= options.decode_limit_bytes
        # The levels together add a third.
        held = decoded * 4 // 3 + (self.size.pixels if self._by_mask else 0)
        self.resident_bytes = held if self._in_memory else 0

    def _extent(self, level: int) -> Size:
        return self._decoded()._extent(level)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._decoded()._read_level(level, window)

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        return self._decoded()._marked(level, window) if self._by_mask else None

    def _decoded(self) -> MemoryPyramid | RasterioReader:
        if self._store is None and self._in_memory:
            with reading(self.location), open_dataset(self._location) as dataset:
                valid = read_valid(dataset) if self._by_mask else None
                self._store = MemoryPyramid(dataset.read(self._indexes), valid, self.nodata)
        elif self._store is None:
            self._store = self._spilled()
        return self._store

    def _spilled(self) -> RasterioReader:
        """The image as a temporary tiled TIFF pyramid."""
        needed = self.size.pixels * (self.bands * self.dtype.itemsize + 1)  # with a mask
        _log.warning("%s is decoded into a temporary file of up to %.1f GiB", self._location, needed / 2**30)
        self._folder = TemporaryFolder(needed, f"decoding {self._location}")
        copy = Path(self._folder.name) / "decoded.tif"
        try:
            write_plain(self._location, copy)
            spilled = RasterioReader(Address.of(copy), self._options)
        except BaseException:
            self._folder.cleanup()
            raise
        with suppress(OSError):
            copy.unlink()  # it stays as long as it is open, and no longer where this process is killed
        return spilled

    def close(self) -> None:
        """Drop the decoded image, or delete the temporary file; a later read decodes again."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._folder is not None:
            self._folder.cleanup()


def open_decoded(location: Address, options: OpenOptions) -> DecodedReader | None:
    """The registry's entry: None when the file is neither PNG nor JPEG."""
    if not location.is_local:
        with open_dataset(location) as dataset:  # GDAL keeps the first bytes for the reader that comes next
            ours = dataset.driver in _DRIVERS
    else:
        ours = location.path.is_file() and first_bytes(location.path, 8).startswith(_MAGIC)
    return DecodedReader(location, options) if ours else None


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
    """An image as it is shown, not as it is stored, by an orientation from 2 to 8, as EXIF numbers them."""

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
