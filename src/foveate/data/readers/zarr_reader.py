"""OME-Zarr and plain Zarr: folders, zip files or servers full of chunks, checked before a codec unpacks them."""

import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore

from foveate.data.readers.array import AxesReader
from foveate.data.readers.base import Address, Plane, redacted
from foveate.data.readers.ngff import image_in
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError, reason_of
from foveate.geometry import Raster, Window

# A chunk is decoded whole, whatever is read of it; unpacking holds it twice for a moment.
MOST_CHUNK_BYTES = 512 << 20
_ARRAY_METADATA = (".zarray", "zarr.json")
_MOST_METADATA = 64 << 20
_SECONDS = 1.0  # for which metadata that were there are believed to be there
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MOST_PART_BYTES = 640 << 20  # of a zip file: a chunk, and what its codec adds


@dataclass(frozen=True, slots=True)
class Chunks:
    """What a chunk of an array may be."""

    packed: tuple[str, ...]  # codecs that pack it, the last one first to be undone; empty for sharded arrays
    size: int  # bytes of a whole chunk that is not packed
    filled: bool  # whether the array says what a chunk holds that is not stored

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> Self:  # in quotes, as older zarr takes no type there
        """Those of an array."""
        sharded = getattr(array, "shards", None) is not None
        names = [type(codec).__name__.lower().removesuffix("codec") for codec in reversed(array.compressors)]
        size = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        return cls(() if sharded else tuple(names), size, array.metadata.fill_value is not None)

    def check(self, data: bytes, name: str) -> None:
        """Refuse a chunk that is shorter than it says, or would become larger than a chunk is."""
        kind = self.packed[0] if self.packed else ""
        if kind == "blosc":  # reads beyond the end of what is cut short
            packed = int.from_bytes(data[12:16], "little")
            _refuse(len(data) < 16 or packed != len(data), name, f"it has {len(data)} bytes but claims {packed}")
        # More than one codec may add some bytes before the last one packs them.
        most = self.size + (self.size >> 3) + 4096
        _refuse(_unpacked(kind, data, most) > most, name, "it is larger than a chunk of its array")


class CheckedStore(WrapperStore[Store]):
    """A store that tells a missing chunk from a missing array, and refuses chunks that are not whole."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._arrays: dict[str, Chunks] = {}
        self._seen: dict[str, float] = {}

    def add(self, array: "zarr.Array[Any]", name: str) -> None:
        """Check the chunks of this array from now on; refuse one whose single chunk is too large to be read whole."""
        chunks = self._arrays[f"{array.path}/" if array.path else ""] = Chunks.of(array)
        if chunks.size > MOST_CHUNK_BYTES:
            raise UnsupportedImageError(
                f"{name} is stored in chunks of {list(array.chunks)}, {chunks.size / 2**20:.0f} MiB each, which must "
                f"be read whole; at most {MOST_CHUNK_BYTES >> 20} MiB are allowed. Store it in chunks of a few "
                "megabytes"
            )

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored under a key; None for a chunk that need not be."""
        found = await self._store.get(key, prototype, byte_range)
        prefix = max((one for one in self._arrays if key.startswith(one)), key=len, default=None)
        if prefix is None or key.rpartition("/")[2] in (*_ARRAY_METADATA, ".zattrs", ".zgroup", ".zmetadata"):
            _refuse(found is not None and len(found) > _MOST_METADATA, key, "metadata may have at most a few megabytes")
            return found
        chunks = self._arrays[prefix]
        if found is None:
            await self._check_missing(prefix, chunks, key)
        elif byte_range is None:
            chunks.check(found.to_bytes(), key)
        return found

    async def _check_missing(self, prefix: str, chunks: Chunks, key: str) -> None:
        if not chunks.filled:
            raise ImageReadError(f"the chunk {key} is missing, and the array has no fill value")
        if time.monotonic() - self._seen.get(prefix, -_SECONDS) < _SECONDS:
            return
        for name in _ARRAY_METADATA:
            if await self._store.exists(prefix + name):
                self._seen[prefix] = time.monotonic()
                return
        raise ImageReadError(
            f"the chunk {key} and the metadata of its array have disappeared; the array was moved or removed"
        )


def _unpacked(kind: str, data: bytes, most: int) -> int:
    """Bytes of a chunk once a codec has unpacked it, as it says; of a stream that does not say so they are counted."""
    if kind in ("blosc", "lz4"):
        return int.from_bytes(data[4:8] if kind == "blosc" else data[:4], "little")
    if kind == "zstd" and data[:4] == _ZSTD_MAGIC:
        return _zstd_size(data)
    total = 0
    if kind in ("gzip", "zlib") and len(data) * 1032 > MOST_CHUNK_BYTES:  # no such stream grows by more
        stream, left = zlib.decompressobj(zlib.MAX_WBITS | 32), data
        while left and total <= most:
            total += len(stream.decompress(left, 1 << 22))
            left = stream.unconsumed_tail
    return total


def _zstd_size(data: bytes) -> int:
    """What a frame of Zstandard (RFC 8878) says it holds; 0 where it does not say so."""
    descriptor = data[4] if len(data) > 4 else 0
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    length = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[start : start + length], "little") + (256 if flag == 1 else 0)


def _refuse(wrong: bool, name: str, reason: str) -> None:
    if wrong:
        raise ImageReadError(f"{name} in it is damaged: {reason}")


class ZarrReader(AxesReader):
    """Reads windows of an OME-Zarr image (NGFF 0.4, 0.5), of a Zarr array (v2, v3) or of a group of arrays.

    Without names of axes, those of `ImageAxes.guessed` are taken. A chunk that is not stored holds the array's fill
    value, as Zarr has it, as long as the array itself is there. The plane is a place along axes other than c, y and x.
    """

    def __init__(self, location: Address, plane: Plane | None = None) -> None:
        self.path, self._location = location.path, location
        self._store = CheckedStore(_store_of(location))
        try:
            image = image_in(_node(self._store, location), str(location), plane)
            for level in image.levels:
                self._store.add(level, str(location))
            self._take(image.levels, image.axes)
        except BaseException:
            self._store.close()
            raise
        self.format, self.resolution, self.band_names = image.format, image.resolution, image.names
        self._extents = tuple(image.extents)
        # Files of chunks are opened and closed again; a zip file stays open.
        self.handles = int(self.path.is_file())

    def _stored(self, level: int, window: Window) -> Raster:
        try:
            return super()._stored(level, window)
        except Exception as error:  # each codec and each server has errors of its own
            reason = "" if isinstance(error, FoveateError) else "; a chunk is damaged or cannot be reached"
            said = redacted(reason_of(error))
            raise ImageReadError(f"could not read {self.location} at {window}: {said}{reason}") from error

    def close(self) -> None:
        """Let go of the store."""
        super().close()
        self._store.close()


def _store_of(location: Address) -> Store:

    if location.is_remote:
        try:
            return FsspecStore.from_url(location.text, read_only=True)
        except ImportError as error:  # s3fs, gcsfs, adlfs
            raise UnsupportedImageError(f"to read Zarr from {location} install what it needs: {error}") from None
    if location.path.is_file():
        _check_zip(location)
        return ZipStore(location.path, mode="r")
    return LocalStore(location.path, read_only=True)


def _check_zip(location: Address) -> None:
    """A part of a zip file is unpacked whole."""
    with zipfile.ZipFile(location.path) as file:
        largest = max((part.file_size for part in file.infolist()), default=0)
    if largest > MOST_PART_BYTES:
        raise UnsupportedImageError(
            f"{location} holds a file of {largest / 2**20:.0f} MiB; at most {MOST_PART_BYTES >> 20} MiB are allowed"
        )


def _node(store: Store, location: Address) -> "zarr.Array[Any] | zarr.Group":

    try:
        return zarr.open(store, mode="r")
    except FileNotFoundError:
        kind = ImageReadError if location.is_remote else UnsupportedImageError
        raise kind(f"no Zarr array or group at {location}") from None
    except Exception as error:  # metadata of any content, servers of any kind
        raise UnsupportedImageError(f"Zarr cannot open {location}: {redacted(reason_of(error))}") from None
