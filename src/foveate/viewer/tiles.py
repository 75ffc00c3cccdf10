"""`TileService`: tiles of a scene's layers, made in threads that each have their own readers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from foveate.data.cache import ReaderCache
from foveate.data.readers import ImageReader, open_image
from foveate.viewer.cache import ByteCache
from foveate.viewer.grid import TileGrid, TileIndex
from foveate.viewer.rendering import encoded
from foveate.viewer.scene import Layer, Scene

CACHE_BYTES = 128 << 20
MAX_OPEN = 16  # files a thread keeps open
_DECODED_BYTES = 2 << 30
_MOST_THREADS = 8


class TileService:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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
