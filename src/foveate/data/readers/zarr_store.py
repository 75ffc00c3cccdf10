"""The chunks of a Zarr as they come from the disk or a server: checked before a codec unpacks them."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.storage import WrapperStore

from foveate.errors import ImageReadError, UnsupportedImageError

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

# A chunk is decoded whole, whatever is read of it; unpacking holds it twice for a moment.
MOST_CHUNK_BYTES = 512 << 20
_METADATA = (".zarray", "zarr.json")
_MOST_METADATA = 64 << 20
_SECONDS = 1.0  # for which metadata that were there are believed to be there
_BLOSC_HEADER = 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Chunks:
    """What a chunk of an array may be.

    Attributes:
        packed: names of the codecs that pack it, the last one first to be undone; empty for sharded arrays.
        size: bytes of a whole chunk that is not packed.
        filled: whether the array says what a chunk holds that is not stored.
    """

    packed: tuple[str, ...]
    size: int
    filled: bool

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Chunks:
        """Those of an array."""
        sharded = getattr(array, "shards", None) is not None
        names = [type(codec).__name__.lower().removesuffix("codec") for codec in reversed(array.compressors)]
        size = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        return cls(() if sharded else tuple(names), size, array.metadata.fill_value is not None)

    def check(self, data: bytes, name: str) -> None:
        """Refuse a chunk that is shorter than it says, or would become larger than a chunk is.

        Raises:
            ImageReadError: naming the chunk.
        """
        kind = self.packed[0] if self.packed else ""
        # More than one codec may add some bytes before the last one packs them.
        most = self.size + (self.size >> 3) + 4096
        if kind == "blosc":
            _check_blosc(data, most, name)
        elif kind in ("gzip", "zlib") and len(data) * 1032 > MOST_CHUNK_BYTES:  # no such stream grows by more
            _check_inflated(data, most, name)
        elif kind == "zstd" and data[:4] == _ZSTD_MAGIC:
            _refuse(_zstd_size(data) > most, name, "it says that it is larger than a chunk of its array")
        elif kind == "lz4":
            _refuse(int.from_bytes(data[:4], "little") > most, name, "it says that it is larger than a chunk")


class CheckedStore(WrapperStore["Store"]):
    """A store that tells a missing chunk from a missing array, and refuses chunks that are not whole.

    Args:
        store: what is wrapped.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._arrays: dict[str, Chunks] = {}
        self._seen: dict[str, float] = {}

    def add(self, array: zarr.Array[Any]) -> None:
        """Check the chunks of this array from now on."""
        self._arrays[f"{array.path}/" if array.path else ""] = Chunks.of(array)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored under a key; None for a chunk that need not be."""
        found = await self._store.get(key, prototype, byte_range)
        prefix = max((one for one in self._arrays if key.startswith(one)), key=len, default=None)
        if prefix is None or key.rpartition("/")[2] in (*_METADATA, ".zattrs", ".zgroup", ".zmetadata"):
            _refuse(found is not None and len(found) > _MOST_METADATA, key, "metadata have at most some megabytes")
            return found
        chunks = self._arrays[prefix]
        if found is None:
            await self._check_missing(prefix, chunks, key)
        elif byte_range is None:
            chunks.check(found.to_bytes(), key)
        return found

    async def _check_missing(self, prefix: str, chunks: Chunks, key: str) -> None:
        if not chunks.filled:
            raise ImageReadError(f"the chunk {key} is missing, and the array does not say what such chunks hold")
        if time.monotonic() - self._seen.get(prefix, -_SECONDS) < _SECONDS:
            return
        for name in _METADATA:
            if await self._store.exists(prefix + name):
                self._seen[prefix] = time.monotonic()
                return
        raise ImageReadError(f"the chunk {key} is gone, and so are the metadata of its array: it was moved or removed")


def check_chunks(array: zarr.Array[Any], name: str) -> None:
    """Refuse an array whose single chunk is too large to be read whole.

    Raises:
        UnsupportedImageError: naming the size.
    """
    size = Chunks.of(array).size
    if size > MOST_CHUNK_BYTES:
        raise UnsupportedImageError(
            f"{name} is stored in chunks of {list(array.chunks)}, {size / 2**20:.0f} MiB each, which must be read "
            f"whole; at most {MOST_CHUNK_BYTES >> 20} MiB are allowed: store it in chunks of some megabytes"
        )


def _check_blosc(data: bytes, most: int, name: str) -> None:
    """Blosc itself reads beyond the end of what is cut short."""
    packed = int.from_bytes(data[12:16], "little")
    _refuse(len(data) < _BLOSC_HEADER or packed != len(data), name, f"it has {len(data)} bytes and says {packed}")
    _refuse(int.from_bytes(data[4:8], "little") > most, name, "it says that it is larger than a chunk of its array")


def _check_inflated(data: bytes, most: int, name: str) -> None:
    stream, left, total = zlib.decompressobj(zlib.MAX_WBITS | 32), data, 0
    while left and total <= most:
        total += len(stream.decompress(left, 1 << 22))
        left = stream.unconsumed_tail
    _refuse(total > most, name, "it is larger than a chunk of its array")


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
