"""Which process works on what, told by files that the operating system locks; so any computers can share an image."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from foveate.errors import OutputInUseError

if TYPE_CHECKING:
    from foveate.inference.store import BlockStore

# What file systems without such locks answer; then only the process noted in the file can be looked for.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; the file is made, and says who holds it since when.

    It may be removed while it is locked: whoever waited for it then makes a new one.

    Raises:
        OutputInUseError: when another process holds it, naming that.
        FileNotFoundError: when its folder is not there.
    """
    file = _own(path)
    try:
        yield
    finally:
        file.close()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of this file; where it cannot be known, whether it may."""
    try:
        with path.open("rb") as file:
            return not _try_flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _own(path: Path) -> IO[bytes]:
    while True:
        file = path.open("a+b")
        if not _try_flock(file, fcntl.LOCK_EX):
            file.close()
            raise OutputInUseError(_busy(path))
        if _is_at(path, file):
            _sign(file)
            return file
        file.close()


def _try_flock(file: IO[bytes], kind: int) -> bool:
    """Lock an open file without waiting; whether that worked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            return False
        return not _may_run(_signature(file))
    return True


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether the open file still is the one of this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sign(file: IO[bytes]) -> None:
    file.truncate(0)
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    file.write(json.dumps(owner).encode())
    file.flush()


def _signature(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(json.loads(file.read()))
    except ValueError:  # empty, or half written
        return {}


def _may_run(owner: dict[str, Any]) -> bool:
    """Whether the process that signed may still run; of another computer that cannot be known."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(owner["pid"]) != os.getpid()


def _busy(path: Path) -> str:
    with path.open("rb") as file:
        owner = _signature(file)
    who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"
    return f"{path.parent} is in use by {who}; wait for it, end it, or choose another --out"


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
