"""PNG and JPEG: files that can only be decoded from the start, so they are decoded once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from foveate.data.readers.gdal import open_dataset, read_header, reading
from foveate.data.readers.memory import MemoryPyramid, halvings
from foveate.data.readers.pyramid import PyramidReader
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.data.readers.tiled_tiff import convert
from foveate.geometry import Size, Window
from foveate.types import Raster

DECODE_LIMIT_BYTES = 1 << 30
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class _Store(Protocol):
    """Where the decoded pixels are."""

    def extent(self, level: int) -> Size: ...

    def read_level(self, level: int, window: Window) -> Raster: ...

    def close(self) -> None: ...


class DecodedReader(PyramidReader):
    """Decodes the file at the first read and keeps it, in memory or, when it is large, in a temporary tiled TIFF.

    Args:
        path: a PNG or JPEG file. An orientation in a JPEG's EXIF is not applied, as masks do not carry it.
        keep_alpha: count an alpha band as a band.
        decode_limit_bytes: decoded size in bytes up to which the image is kept in memory.

    Raises:
        UnsupportedImageError: when the header cannot be read.
    """

    random_access = False

    def __init__(self, path: Path, *, keep_alpha: bool = False, decode_limit_bytes: int = DECODE_LIMIT_BYTES) -> None:
        self.path = path
        self._keep_alpha = keep_alpha
        self._store: _Store | None = None
        with open_dataset(path) as dataset:
            header = read_header(dataset, keep_alpha)
        self._indexes = list(header.indexes)
        self.format, self.size, self.bands = header.format, header.size, len(header.indexes)
        self.alpha, self.palette, self.dtype = header.alpha, header.palette, header.dtype
        self.georeference = header.georeference
        self.levels = halvings(self.size)
        decoded = self.size.pixels * self.bands * self.dtype.itemsize
        self._in_memory = decoded <= decode_limit_bytes
        # The levels together add a third.
        self.resident_bytes = decoded * 4 // 3 if self._in_memory else 0

    def _extent(self, level: int) -> Size:
        return self._decoded().extent(level)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._decoded().read_level(level, window)

    def _decoded(self) -> _Store:
        if self._store is None:
            self._store = self._decode() if self._in_memory else _Spilled(self.path, self._keep_alpha)
        return self._store

    def _decode(self) -> _Store:
        with reading(self.path), open_dataset(self.path) as dataset:
            return _InMemory(dataset.read(self._indexes))

    def close(self) -> None:
        """Drop the decoded image, or delete the temporary file; a later read decodes again."""
        if self._store is not None:
            self._store.close()
            self._store = None


class _InMemory(MemoryPyramid):
    def close(self) -> None:
        self._levels.clear()


class _Spilled:
    """The image as a temporary tiled TIFF pyramid, deleted when closed."""

    def __init__(self, path: Path, keep_alpha: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="foveate-")
        try:
            copy = Path(self._folder.name) / "decoded.tif"
            convert(path, copy, compression="none")
            self._reader = RasterioReader(copy, keep_alpha=keep_alpha)
        except BaseException:
            self._folder.cleanup()
            raise

    def extent(self, level: int) -> Size:
        return self._reader._extent(level)

    def read_level(self, level: int, window: Window) -> Raster:
        return self._reader._read_level(level, window)

    def close(self) -> None:
        self._reader.close()
        self._folder.cleanup()


def open_decoded(path: Path, *, keep_alpha: bool, decode_limit_bytes: int) -> DecodedReader | None:
    """The registry's entry: None when the file is neither PNG nor JPEG by its first bytes."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if not file.read(8).startswith(_MAGIC):
            return None
    return DecodedReader(path, keep_alpha=keep_alpha, decode_limit_bytes=decode_limit_bytes)
