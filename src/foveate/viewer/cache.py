"""Encoded tiles that were asked for lately, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


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
