"""PNG and JPEG: files that can only be decoded from the start, so they are decoded once, to memory or to a TIFF."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from foveate.data.readers.base import PLAIN, Address, OpenOptions, first_bytes
from foveate.data.readers.gdal import GdalReader, georeference_of, open_dataset, read_valid, reading
from foveate.data.readers.pyramid import MemoryPyramid
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.data.readers.resolution import resolution_of
from foveate.files import TemporaryFolder, written
from foveate.geometry import Size, Window, halvings
from foveate.tiff.raster import TiffSource, write_plain_pyramid
from foveate.types import BoolArray, Raster

_log = logging.getLogger(__name__)
# They decode from the first row on: reading part of a row and coming back would decode it all again.
_DRIVERS = ("PNG", "JPEG")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


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
    """Decodes the file at the first read and keeps it, in memory or, when it is large, in a temporary tiled TIFF.

    Args:
        location: a PNG or JPEG file, read as it is stored.
        options: which bands count, what is believed to be no data, and up to which size the image is kept in memory.
    """

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
