"""Files: complete under their final name or not there, known again by their checksum; and temporary ones."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from foveate.errors import ConfigError, FoveateError, OutputExistsError, OutputWriteError

_AT_ONCE = 1 << 22
# What a name gets while it is written, in bytes: a dot, ".partial-" and the number of the process.
_LONGER = 20
# A result is written in a folder of its own within that of the stored blocks.
_DEEPER = 60
_PREFIX = "foveate-"
_LOCK = "lock"
_SECONDS = 60.0  # in which a new folder gets its lock


class Closing:
    """Closed at the end of a `with` block, as files are."""

    def close(self) -> None:
        """Release what is held; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def refuse_existing(path: Path, overwrite: bool, endings: Sequence[str] = ()) -> None:
    """Raise unless the path is free or may be replaced, and can be written; call it before any work.

    Args:
        path: of the result.
        overwrite: replace what is there.
        endings: those of names of the format that is written, such as ".json"; any when empty.

    Raises:
        ConfigError: when the name is that of another format.
        OutputExistsError: when something is there and `overwrite` is false.
        OutputWriteError: when a file of that name cannot be written, as its name or path is too long, or its folder is
            read only.
    """
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{path}: the name of what is written here ends in {' or '.join(endings)}")
    _check_length(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK):
        raise OutputWriteError(f"cannot write {path}: {folder} is read only; choose another output")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; choose another output or pass --overwrite to replace it")


@contextmanager
def written(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success force it to the disk and rename it, else remove it.

    The temporary name keeps the suffix, which some writers choose the format by.

    Raises:
        OutputExistsError: when `path` exists and `overwrite` is false.
        OutputWriteError: when writing failed, for example on a full disk.
    """
    refuse_existing(path, overwrite)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        partial.replace(path)
        sync_folder(path.parent)
    except FoveateError:
        raise  # says already what went wrong, for example a source that could not be read
    except OSError as error:
        raise OutputWriteError(f"could not write {path}: {error}; nothing was left under that name") from error
    finally:
        with suppress(OSError):  # on a file system that is read only; what went wrong is said already
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write a text file in one step: it is either the old one or the whole new one."""
    with written(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")


def files_in(path: Path) -> list[Path]:
    """Every file in a folder, at any depth, sorted; a file itself; none where nothing is there."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path][: path.is_file()]


def checksum(files: Iterable[Path], root: Path, go_on: Callable[[], bool] = lambda: True) -> str | None:
    """SHA-256 of the names and contents of files; equal for a copy of them.

    Args:
        files: in an order that does not change.
        root: what the names are taken from, where they are below it.
        go_on: asked after every few megabytes.

    Returns:
        Hexadecimal digits; None when told not to go on.

    Raises:
        OSError: when one cannot be read.
    """
    total = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while piece := file.read(_AT_ONCE):
                total.update(piece)
                if not go_on():
                    return None
    return total.hexdigest()


def sync(path: Path) -> None:
    """Force a file, or all of a folder, to the disk, so that it survives a power cut.

    Raises:
        OSError: when the disk refuses, as it is full or broken.
    """
    for file in files_in(path):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if path.is_dir():
        for folder in (path, *(item for item in path.rglob("*") if item.is_dir())):
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Force what a folder holds by name to the disk, so that a renamed file survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(handle)


def _check_length(path: Path) -> None:
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` asks the disk about every part
    name, all_of_it = len(os.fsencode(whole.name)), len(os.fsencode(whole))
    most_name, most_path = _limits(whole.parent)
    longest = max(len(os.fsencode(part)) for part in whole.parts)
    if max(name + _LONGER, longest) > most_name or all_of_it + name + _DEEPER > most_path:
        raise OutputWriteError(
            f"the name {whole.name[:40]}... has {name} bytes and its path {all_of_it}, which is too long: a name may "
            f"have {most_name - _LONGER} bytes here, a path {most_path - name - _DEEPER}. Give it a shorter name, or "
            "choose another output folder"
        )


def _limits(folder: Path) -> tuple[int, int]:
    """Most bytes of a name and of a path on the disk of a folder, which need not be there yet."""
    for place in (folder, *folder.parents):
        try:
            return os.pathconf(place, "PC_NAME_MAX"), os.pathconf(place, "PC_PATH_MAX")
        except OSError:
            continue
    return 255, 4096


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
