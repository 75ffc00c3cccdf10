"""Open readers, kept while they are likely to be used again."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foveate.data.readers import ImageReader, open_image
from foveate.data.readers.overviews import with_overviews
from foveate.data.readers.pyramid import PyramidReader

MAX_OPEN = 64
# Each level of a TIFF is an open file. Many systems give a process 1024, and a worker has two caches.
MAX_FILES = 256


class ReaderCache:
    """The most recently used readers of one process, bounded in bytes, in number and in open files.

    The readers of another process are never used: after a fork the cache is empty, as it is after pickling, because
    file handles shared between processes share their position.

    Args:
        max_bytes: bytes of decoded images; the one in use is kept even when it alone is larger.
        opener: opens an image; can be pickled.
        max_open: number of readers.
        max_files: files they keep open together; those of the one in use are kept even when they alone are more.
        overviews: give files that lack coarse levels some, see `with_overviews`.
    """

    def __init__(
        self,
        max_bytes: int,
        opener: Callable[[Path], ImageReader] = open_image,
        *,
        max_open: int = MAX_OPEN,
        max_files: int = MAX_FILES,
        overviews: bool = False,
    ) -> None:
        self._max_bytes, self._max_open, self._max_files = max_bytes, max_open, max_files
        self._open, self._with_overviews = opener, overviews
        self._readers: OrderedDict[Path, ImageReader] = OrderedDict()
        self._process = os.getpid()

    def get(self, path: Path) -> ImageReader:
        """An open reader, which the cache closes; use it before the next call.

        Raises:
            ImageReadError: when there is no such file.
            UnsupportedImageError: when no reader can open it.
        """
        if self._process != os.getpid():
            self._readers, self._process = OrderedDict(), os.getpid()
        if path not in self._readers:
            reader = self._open(path)
            if self._with_overviews and isinstance(reader, PyramidReader):
                reader = with_overviews(reader)
            self._readers[path] = reader
            self._evict()
        self._readers.move_to_end(path)
        return self._readers[path]

    def _evict(self) -> None:
        while len(self._readers) > 1 and self._is_full():
            _, oldest = self._readers.popitem(last=False)
            oldest.close()

    def _is_full(self) -> bool:
        held = sum(reader.resident_bytes for reader in self._readers.values())
        files = sum(reader.handles for reader in self._readers.values())
        return held > self._max_bytes or files > self._max_files or len(self._readers) > self._max_open

    def close(self) -> None:
        """Close all readers; the cache can be used again."""
        while self._readers:
            self._readers.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}
