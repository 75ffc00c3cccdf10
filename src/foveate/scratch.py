"""Files that are not kept: deleted by whoever made them, or where that was killed by the next who needs some."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

from foveate.errors import OutputWriteError

_PREFIX = "foveate-"
_LOCK = "lock"
_SECONDS = 60.0  # in which a new folder gets its lock


class TemporaryFolder:
    """A folder in the system's place for temporary files (TMPDIR), deleted when closed or no longer used.

    Its owner keeps a file in it locked, which the system lets go of whatever ends the process. Folders whose owner is
    gone are deleted here.

    It is used as `tempfile.TemporaryDirectory` is.

    Args:
        needed: most bytes that it is for.
        what: needs them, for errors.

    Raises:
        OutputWriteError: when so much is not free.
    """

    def __init__(self, needed: int = 0, what: str = "") -> None:
        root = Path(tempfile.gettempdir())
        _remove_abandoned(root)
        free = shutil.disk_usage(root).free
        if needed > free:
            raise OutputWriteError(
                f"{what} needs up to {needed / 2**30:.1f} GiB of temporary files and {root} has {free / 2**30:.1f} GiB "
                f"free; make room, or set the environment variable TMPDIR to a folder on another disk"
            )
        self.name = tempfile.mkdtemp(prefix=_PREFIX)
        lock = Path(self.name, _LOCK).open("w", encoding="ascii")  # noqa: SIM115 - open as long as the folder is
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._end = weakref.finalize(self, _remove, self.name, lock)

    def cleanup(self) -> None:
        """Delete it; may be called twice."""
        self._end()


def _remove(path: str, lock: IO[str]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another user, or just removed
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    lock = folder / _LOCK
    if not lock.is_file() or time.time() - lock.stat().st_mtime < _SECONDS:
        return False
    with lock.open("r+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
