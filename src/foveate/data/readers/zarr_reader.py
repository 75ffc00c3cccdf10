"""OME-Zarr and plain Zarr: folders, zip files or servers full of chunks."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.readers.axes import pixel_type
from foveate.data.readers.location import Location, redacted
from foveate.data.readers.options import OpenOptions, Plane
from foveate.data.readers.pyramid import PyramidReader
from foveate.data.readers.zarr_image import ZarrImage, image_in
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.types import Raster

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from foveate.data.readers.zarr_image import Array, Node

MOST_PART_BYTES = 640 << 20  # of a zip file: a chunk, and what its codec adds
_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


class ZarrReader(PyramidReader):
    """Reads windows of an OME-Zarr image (NGFF 0.4, 0.5), of a Zarr array (v2, v3) or of a group of arrays.

    Without names of axes, those of `ImageAxes.guessed` are taken. A chunk that is not stored holds the array's fill
    value, as Zarr has it, as long as the array itself is there.

    Args:
        location: a folder, a zip file or a URL; of an array within a group too.
        plane: which place along axes other than c, y and x, where there are several.

    Raises:
        ModuleNotFoundError: when the extra `zarr` is not installed.
        ImageReadError: when a server has nothing there.
        UnsupportedImageError: when it is no Zarr, or no image.
    """

    def __init__(self, location: Location, plane: Plane | None = None) -> None:
        self.path, self._location = location.path, location
        from foveate.data.readers.zarr_store import CheckedStore, check_chunks  # noqa: PLC0415 - zarr is an extra

        self._store = CheckedStore(_store_of(location))
        try:
            image = image_in(_node(self._store, location), str(location), plane)
            self._levels: list[Array] | None = image.levels
            self._axes = image.axes
            for level in image.levels:
                check_chunks(level, str(location))
                self._store.add(level)
            self._describe(image)
        except BaseException:
            self._store.close()
            raise

    def _describe(self, image: ZarrImage) -> None:
        finest, name = image.levels[0], self.location
        self.format, self.resolution, self.band_names = image.format, image.resolution, image.names
        self.dtype = pixel_type(finest.dtype, name)
        self.masked = self.dtype.kind == "f"
        self.bands, self.size = self._axes.bands(finest.shape), self._axes.size(finest.shape)
        self.levels = tuple(self._axes.size(level.shape) for level in image.levels)
        self._extents = tuple(image.extents)
        # Files of chunks are opened and closed again; a zip file stays open.
        self.handles = int(self.path.is_file())

    @property
    def location(self) -> str:
        """The path or URL."""
        return str(self._location)

    def _extent(self, level: int) -> Size:
        return self._extents[level]

    def _read_level(self, level: int, window: Window) -> Raster:
        if self._levels is None:
            raise ValueError(f"{self.location} is closed")
        try:
            part = np.asarray(self._levels[level][self._axes.index(window)])
        except Exception as error:  # each codec and each server has errors of its own
            reason = "" if isinstance(error, FoveateError) else "; a chunk is damaged or cannot be reached"
            raise ImageReadError(f"could not read {self.location} at {window}: {_reason(error)}{reason}") from error
        return np.array(self._axes.ordered(part), self.dtype, order="C")

    def close(self) -> None:
        """Let go of the store."""
        self._levels = None
        self._store.close()


def _store_of(location: Location) -> Store:
    from zarr.storage import FsspecStore, LocalStore, ZipStore  # noqa: PLC0415 - an extra

    if location.is_remote:
        try:
            return FsspecStore.from_url(location.text, read_only=True)
        except ImportError as error:  # s3fs, gcsfs, adlfs
            raise UnsupportedImageError(f"to read Zarr from {location} install what it needs: {error}") from None
    if location.path.is_file():
        _check_zip(location)
        return ZipStore(location.path, mode="r")
    return LocalStore(location.path, read_only=True)


def _check_zip(location: Location) -> None:
    """A part of a zip file is unpacked whole."""
    with zipfile.ZipFile(location.path) as file:
        largest = max((part.file_size for part in file.infolist()), default=0)
    if largest > MOST_PART_BYTES:
        raise UnsupportedImageError(
            f"{location} holds a file of {largest / 2**20:.0f} MiB; at most {MOST_PART_BYTES >> 20} MiB are unpacked"
        )


def _node(store: Store, location: Location) -> Node:
    import zarr  # noqa: PLC0415 - an extra

    try:
        return zarr.open(store, mode="r")
    except FileNotFoundError:
        kind = ImageReadError if location.is_remote else UnsupportedImageError
        raise kind(f"no Zarr array or group at {location}") from None
    except Exception as error:  # metadata of any content, servers of any kind
        raise UnsupportedImageError(f"Zarr cannot open {location}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Some errors have no text."""
    return redacted(str(error)) or type(error).__name__


def open_zarr(location: Location, options: OpenOptions) -> ZarrReader | None:
    """The registry's entry: None when there are no Zarr metadata; of a URL when no part of it ends in .zarr."""
    return ZarrReader(location, options.plane) if _is_ours(location) else None


def _is_ours(location: Location) -> bool:
    if location.is_virtual:
        return False
    if location.is_remote:
        return any(part.lower().endswith(".zarr") for part in location.path.parts)
    if location.path.is_dir():
        return any((location.path / name).is_file() for name in _METADATA)
    if location.path.suffix.lower() not in (".zip", ".zarr", ".ozx") or not zipfile.is_zipfile(location.path):
        return False
    with zipfile.ZipFile(location.path) as file:
        return any(name in _METADATA for name in file.namelist())
