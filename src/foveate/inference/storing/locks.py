"""Locks on files that the operating system keeps: they end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from foveate.errors import OutputInUseError

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
