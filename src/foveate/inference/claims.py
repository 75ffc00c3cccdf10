"""Which process works on what, told by files that the operating system locks; so any computers can share an image."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.locks import is_held, locked

if TYPE_CHECKING:
    from foveate.inference.store import BlockStore


class Claims:
    """The blocks of one process.

    A claim is a file that only one process can create. It names a file that its owner keeps locked: once the owner is
    dead, others may take over. Should two work on the same block after all, they write the same bytes.

    Args:
        store: whose blocks are shared.
    """

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._folder, self._workers = store.path / "claims", store.path / "workers"
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Within this context others leave this process's claims alone."""
        with locked(self._workers / self._name):
            yield

    def take(self, numbers: Iterable[int]) -> Iterator[int]:
        """Claim those of some numbers that are free, each when it is asked for."""
        return (number for number in numbers if self._claim(number) or self._take_over(number))

    def give_back(self, number: int) -> None:
        """Leave a block to others."""
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08d}"

    def _claim(self, number: int) -> bool:
        try:
            handle = os.open(self._file(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except (FileExistsError, FileNotFoundError):  # claimed already; or the store is gone, as all is done
            return False
        try:
            os.write(handle, self._name.encode())
        finally:
            os.close(handle)
        return True

    def _take_over(self, number: int) -> bool:
        """Claim a block whose owner is dead. A claim without a name is of one that died while it claimed."""
        if self._store.has(number):
            return False
        try:
            owner = self._file(number).read_text()
        except FileNotFoundError:
            return False
        if owner == self._name or (owner and is_held(self._workers / owner)):
            return False
        self.give_back(number)
        return self._claim(number)
