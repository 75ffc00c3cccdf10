"""Tiles: how a raster is cut into them, and `TileService`, which makes them in threads with readers of their own."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from foveate.data.images import ReaderCache
from foveate.data.readers import ImageReader, open_image
from foveate.files import Closing
from foveate.geometry import Size, Window, ceil_div
from foveate.viewer.rendering import encoded
from foveate.viewer.scene import Layer, Scene


class TileIndex(NamedTuple):
    """Which tile: its level (0 is one pixel, the highest is the raster itself), column and row."""

    level: int
    col: int
    row: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a raster.

    Attributes:
        size: of the raster.
        side: of a tile in pixels; the last of a row or column may be smaller.
    """

    size: Size
    side: int = 256

    @property
    def max_level(self) -> int:
        """The level at full resolution."""
        return (max(self.size.height, self.size.width) - 1).bit_length()

    def level_size(self, level: int) -> Size:
        """Size of a level, rounded up to whole pixels."""
        step = 1 << (self.max_level - level)
        return Size(ceil_div(self.size.height, step), ceil_div(self.size.width, step))

    def place(self, index: TileIndex) -> tuple[Window, Size]:
        """What a tile shows: its window in pixels of the raster, and its own size.

        The window may reach over the lower and right border by less than a pixel of the level, so that the pixels of
        all tiles of a level have one size.

        Raises:
            IndexError: when there is no such tile.
        """
        if not 0 <= index.level <= self.max_level or min(index.col, index.row) < 0:
            raise IndexError(index)
        size, step = self.level_size(index.level), 1 << (self.max_level - index.level)
        top, left = index.row * self.side, index.col * self.side
        if top >= size.height or left >= size.width:
            raise IndexError(index)
        shown = Size(min(self.side, size.height - top), min(self.side, size.width - left))
        return Window(top * step, left * step, shown.height * step, shown.width * step), shown

    def __iter__(self) -> Iterator[TileIndex]:
        for level in range(self.max_level + 1):
            size = self.level_size(level)
            for row in range(ceil_div(size.height, self.side)):
                for col in range(ceil_div(size.width, self.side)):
                    yield TileIndex(level, col, row)

    def __len__(self) -> int:
        sizes = map(self.level_size, range(self.max_level + 1))
        return sum(ceil_div(size.height, self.side) * ceil_div(size.width, self.side) for size in sizes)


class ByteCache:
    """The most recently used values, of at most so many bytes together; several threads may use it.

    Args:
        max_bytes: of all values; a larger value is not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes kept at present."""
        return self._held

    def get(self, key: Hashable) -> bytes | None:
        """The value, or None when it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep a value, and let go of the oldest until all fit."""
        if len(value) > self._max_bytes:
            return
        with self._lock:
            self._held += len(value) - len(self._values.pop(key, b""))
            self._values[key] = value
            while self._held > self._max_bytes:
                self._held -= len(self._values.popitem(last=False)[1])


CACHE_BYTES = 128 << 20
MAX_OPEN = 16  # files a thread keeps open
_DECODED_BYTES = 2 << 30
_MOST_THREADS = 8


class TileService(Closing):
    """Makes tiles, each as the bytes of a file; close it when done.

    Files that can only be decoded whole (PNG, JPEG) are read by one thread, so that they are decoded once.

    Args:
        scene: whose layers.
        cache_bytes: of encoded tiles that are kept.
        threads: that read; the number of cores, at most 8, when None.
    """

    def __init__(self, scene: Scene, *, cache_bytes: int = CACHE_BYTES, threads: int | None = None) -> None:
        self.scene = scene
        self.threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._cache = ByteCache(cache_bytes)
        self._readers = _ThreadReaders()
        self._many = ThreadPoolExecutor(self.threads, thread_name_prefix="tiles")
        self._one = ThreadPoolExecutor(1, thread_name_prefix="tiles-of-decoded")
        self._decoded = _decoded_whole(path for layer in scene.layers for path in layer.rendering.paths)

    def submit(self, layer: int, index: TileIndex) -> Future[bytes]:
        """Make a tile in a thread, unless it is kept.

        Args:
            layer: its place in the scene's layers.
            index: which tile of it.

        Returns:
            Its JPEG or PNG bytes, or the `ImageReadError` of a damaged file.

        Raises:
            IndexError: when there is no such layer or tile.
        """
        if not 0 <= layer < len(self.scene.layers):
            raise IndexError(layer)
        chosen, future = self.scene.layers[layer], Future[bytes]()
        TileGrid(chosen.size, self.scene.tile).place(index)  # raises
        kept = self._cache.get((layer, index))
        if kept is not None:
            future.set_result(kept)
            return future
        lane = self._one if self._decoded.intersection(chosen.rendering.paths) else self._many
        return lane.submit(self._make, layer, chosen, index)

    def _make(self, layer: int, chosen: Layer, index: TileIndex) -> bytes:
        window, size = TileGrid(chosen.size, self.scene.tile).place(index)
        pixels = chosen.rendering(self._readers.get, window, size)
        tile = encoded(pixels, chosen.rendering.media)
        self._cache.put((layer, index), tile)
        return tile

    def close(self) -> None:
        """Stop the threads and close all files; may be called twice."""
        for pool in (self._many, self._one):
            pool.shutdown(cancel_futures=True)
        self._readers.close()


class _ThreadReaders:
    """Open readers, a set for every thread: a reader belongs to one."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[ReaderCache] = []

    def get(self, path: Path) -> ImageReader:
        if not hasattr(self._own, "readers"):
            self._own.readers = ReaderCache(_DECODED_BYTES, max_open=MAX_OPEN, overviews=True)
            self._all.append(self._own.readers)
        reader: ImageReader = self._own.readers.get(path)
        return reader

    def close(self) -> None:
        """Once the threads have ended."""
        while self._all:
            self._all.pop().close()


def _decoded_whole(paths: Iterable[Path]) -> set[Path]:
    found = set()
    for path in set(paths):
        with open_image(path) as reader:
            if not reader.random_access:
                found.add(path)
    return found
