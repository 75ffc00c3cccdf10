"""The files of an image: whether they still hold what they held when its first block was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from foveate.data.readers.gdal import open_dataset
from foveate.data.readers.openslide_reader import dicom_files
from foveate.errors import ConfigError, FoveateError, ImageReadError
from foveate.files import checksum, files_in, write_text

# Seconds that finished results wait for what is read beside the work: only of an image that was hardly read itself.
_PATIENCE = 10.0
_GRACE = 1.0  # seconds that a run that stops waits for the same


class ImageFiles:
    """Knows the files of an image by their times, and where those changed by all they hold.

    All they hold is read once, beside the work. Of an image in memory, on a server or in an archive nothing is known.

    Args:
        path: of the image, as `ImageReader.path`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times = self._times_now()
        self._content: str | None = None
        self._reading: Thread | None = None

    def tree(self) -> dict[str, Any]:
        """What a later run compares: the times, and the checksum of all they hold, None where that is not known."""
        if self._reading is not None:
            self._reading.join(_PATIENCE)
        return {"times": self._times, "content": self._content}

    def expect(self, known: Any, what: str) -> None:
        """Compare with what was noted.

        Args:
            known: a `tree` of before.
            what: what that belongs to, for the message.

        Raises:
            ConfigError: when a file was changed since, or may have been.
        """
        before = known if isinstance(known, dict) else {}
        self._content = before.get("content")
        if before.get("times") == self._times:
            return
        if not self._content or self._read() != self._content:
            raise ConfigError(
                f"{self._path} was changed since {what}, which would be of two images then; start anew with "
                "--overwrite, or choose another --out"
            )

    @contextmanager
    def noted(self, note: Path) -> Iterator[None]:
        """Note what a later run compares; all that the files hold is read meanwhile."""
        self._write(note)
        stop = Event()
        if self._content is None and _files_of(self._path):
            self._reading = Thread(target=self._note_content, args=(note, stop), daemon=True)
            self._reading.start()
        try:
            yield
        finally:
            if self._reading is not None:
                self._reading.join(_GRACE)
                stop.set()
                self._reading.join()

    def check(self) -> None:
        """Compare with what the files were when this was made.

        Raises:
            ImageReadError: when one was changed, or removed.
        """
        if self._times_now() != self._times and (self._content is None or self._read() != self._content):
            raise ImageReadError(
                f"{self._path} was changed or removed while it was segmented, so that the result would be of two "
                "images; start anew with --overwrite once it stays as it is"
            )

    def _note_content(self, note: Path, stop: Event) -> None:
        content = self._read(stop)
        if content is not None and self._times_now() == self._times:
            self._content = content
            with suppress(FoveateError):  # the store is gone, or the disk is full, which the blocks tell
                self._write(note)

    def _write(self, note: Path) -> None:
        if note.parent.is_dir():  # a store that was removed does not come back
            tree = {"times": self._times, "content": self._content}
            write_text(note, json.dumps(tree, indent=2) + "\n", overwrite=True)

    def _read(self, stop: Event | None = None) -> str | None:
        """Checksum of all that the files hold; None when stopped, or when a file is gone."""
        try:
            return checksum(_files_of(self._path), self._path.parent, lambda: stop is None or not stop.is_set())
        except OSError:
            return None

    def _times_now(self) -> str:
        """Name, length and times of every file; the time of the last change of any kind cannot be set back."""
        total = hashlib.sha256()
        for path in _files_of(self._path):
            with suppress(FileNotFoundError):
                about = path.stat()
                total.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ctime_ns}\0".encode())
        return total.hexdigest()


def _files_of(path: Path) -> list[Path]:
    """Every local file that the pixels of an image may come from."""
    if not path.is_file():
        return files_in(path)
    beside = {".mrxs": files_in(path.with_suffix("")), ".dcm": dicom_files(path.parent)}
    return sorted({path, *beside.get(path.suffix.lower(), ()), *_seen_by_gdal(path)})


def _seen_by_gdal(path: Path) -> list[Path]:
    """Those of a virtual raster, a header beside its pixels, overviews; not statistics, which any viewer writes."""
    try:
        with open_dataset(path) as image:
            files = [Path(name) for name in image.files]
    except FoveateError:
        return []
    return [file for file in files if file.is_file() and not file.name.endswith(".aux.xml")]
