"""Locks on files: they end with the process that holds them, however it ends, and say who holds them."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from foveate.errors import OutputInUseError, OutputWriteError

# What file systems without locks answer. There a second file that names its process is the lock.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; the file is made, says who holds it since when, and is removed at the end.

    It may be removed while it is locked: whoever comes then makes a new one.

    Raises:
        OutputInUseError: when another process holds it, naming that.
        FileNotFoundError: when its folder is not there.
    """
    lock = _taken(path)
    if lock is None:
        raise OutputInUseError(
            f"{path.parent} is in use by {_holder(path)}; wait until it ends, stop it, or choose another --out"
        )
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        path.write_text(json.dumps(owner), encoding="utf-8")
        mine = path.stat()
        yield
    finally:
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), mine):
                path.unlink()
        lock.release()


@contextmanager
def locked_folder(path: Path, name: str) -> Iterator[None]:
    """Make a folder and hold a lock in it; a folder that was made here and holds nothing at the end is removed.

    Args:
        path: of the folder.
        name: of the lock.

    Raises:
        OutputInUseError: when another process holds it, naming that.
        OutputWriteError: when the folder cannot be made, or not be written.
    """
    with ExitStack() as stack:
        try:
            if not path.exists():
                stack.callback(_remove_empty, path)
            while True:
                path.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # removed in between, by a process that has just ended
                    stack.enter_context(locked(path / name))
                    break
        except OutputInUseError:
            raise
        except OSError as error:
            raise OutputWriteError(f"cannot write to {path.parent}: {error}; choose another --out") from error
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds something
        folder.rmdir()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of this file; where it cannot be known, whether it may."""
    if not path.exists():
        return False
    lock = _taken(path)
    if lock is not None:
        lock.release()
    return lock is None


def _taken(path: Path) -> BaseFileLock | None:
    """The lock of a file, taken without waiting; None where another holds it."""
    try:
        return _acquired(FileLock(path, thread_local=False, fallback_to_soft=False))
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
    return _acquired(SoftFileLock(_soft(path), thread_local=False))


def _acquired(lock: BaseFileLock) -> BaseFileLock | None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _soft(path: Path) -> Path:
    return path.with_name(f"{path.name}.soft")


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, LookupError, TypeError):  # it has only just taken it
        return "another process"
