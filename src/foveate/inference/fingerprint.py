"""Fingerprints: whether the model and the image are still those of the blocks and results that are found."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from foveate.config_base import ConfigTree
from foveate.data.readers.base import band_files, is_pattern
from foveate.data.readers.gdal import open_dataset
from foveate.data.readers.openslide_reader import dicom_files
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ConfigError, FoveateError, ImageReadError
from foveate.files import checksum, files_in, write_text
from foveate.geometry import Window, diagonal
from foveate.inference.source import PixelSource
from foveate.segmenter import FoveatedSegmenter
from foveate.texts import sealed

# Of a large file so many evenly spread pieces are read, the first and the last among them.
_PIECES, _PIECE_BYTES = 34, 1 << 16
# Of every image so many windows.
_WINDOWS, _WINDOW_SIDE = 5, 64
_DIGITS = 16


def model_tree(segmenter: FoveatedSegmenter) -> ConfigTree:
    """Everything of a segmenter that decides what it predicts."""
    return {
        "weights": _digest_of_weights(segmenter),
        # Addresses in memory, which some modules print, differ from run to run.
        "layers": _digest(re.sub(r"0x[0-9a-f]+", "", repr(segmenter)).encode()),
        "estimator": segmenter.estimator.tree(),
        "patch_size": segmenter.scales.patch_size,
        "fields_of_view": list(segmenter.scales.fields_of_view),
        **({} if segmenter.scales.surround is None else {"surround": segmenter.scales.surround}),
        "overview_downsample": segmenter.overview_downsample,
        "alignment": segmenter.alignment,
    }


def image_tree(source: PixelSource) -> ConfigTree:
    """Everything of an image that decides what is predicted for it, but not where it lies."""
    reader = source.reader
    place = reader.georeference
    normalisation = source.normalisation
    return {
        "size": [reader.size.height, reader.size.width],
        "bands": reader.bands,
        "dtype": reader.dtype.name,
        "content": _digest_of_file(reader) if reader.path.is_file() else "",
        "samples": _digest_of_samples(reader),
        "crs": place.crs if place else None,
        "transform": list(place.transform) if place else None,
        "channels": list(source.channels),
        "normalisation": [
            normalisation.scale,
            list(normalisation.mean),
            list(normalisation.std),
        ],
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _digest_of_weights(segmenter: FoveatedSegmenter) -> str:
    total = hashlib.sha256()
    for name, value in segmenter.state_dict().items():
        values = value.detach().cpu().contiguous()
        total.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        # As bytes, because NumPy lacks some of torch's types.
        total.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:_DIGITS]


def _digest_of_file(reader: ImageReader) -> str:
    """Of its length and of evenly spread pieces; a copy of the file has the same."""
    length = reader.path.stat().st_size
    total = hashlib.sha256(str(length).encode())
    with reader.path.open("rb") as file:
        for start in np.linspace(0, max(0, length - _PIECE_BYTES), _PIECES).astype(int):
            file.seek(int(start))
            total.update(file.read(_PIECE_BYTES))
    return total.hexdigest()[:_DIGITS]


def _digest_of_samples(reader: ImageReader) -> str:
    """Of the pixels of windows along the diagonal: all there is of a folder, a URL or an array.

    Some formats keep their pixels beside the file that is opened, so these count of a file too.
    """
    total = hashlib.sha256()
    for window in diagonal(reader.size, _WINDOWS, _WINDOW_SIDE):
        total.update(_sample(reader, window))
    return total.hexdigest()[:_DIGITS]


def _sample(reader: ImageReader, window: Window) -> bytes:
    try:
        return np.ascontiguousarray(reader.read(window)).tobytes()
    except ImageReadError:  # what is done about a place that cannot be read is decided where it is predicted
        return b"unreadable"


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
                f"{self._path} has changed since {what}, so the result would mix two images. Start again with "
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
                f"{self._path} was changed or removed during the prediction, so the result would mix two images. Start "
                "again with --overwrite when it no longer changes"
            )

    def _note_content(self, note: Path, stop: Event) -> None:
        content = self._read(stop)
        if content is not None and self._times_now() == self._times:
            self._content = content
            with suppress(FoveateError):  # the store is gone, or the disk is full, which the blocks tell
                self._write(note)

    def _write(self, note: Path) -> None:
        if note.parent.is_dir():  # a store that was removed does not come back
            write_text(note, sealed({"times": self._times, "content": self._content}), overwrite=True)

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
    if is_pattern(path):
        return sorted({file for band in band_files(path).values() for file in _files_of(band)})
    if not path.is_file():
        return files_in(path)
    beside = {".mrxs": lambda: files_in(path.with_suffix("")), ".dcm": lambda: dicom_files(path.parent)}
    return sorted({path, *beside.get(path.suffix.lower(), list)(), *_seen_by_gdal(path)})


def _seen_by_gdal(path: Path) -> list[Path]:
    """Those of a virtual raster, a header beside its pixels, overviews; not statistics, which any viewer writes."""
    try:
        with open_dataset(path) as image:
            files = [Path(name) for name in image.files]
    except FoveateError:
        return []
    return [file for file in files if file.is_file() and not file.name.endswith(".aux.xml")]
