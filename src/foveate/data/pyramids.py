"""Images as TIFFs with a pyramid: converted for good, or the coarse levels that a file lacks, kept in a cache."""

import fcntl
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from foveate.data.readers import open_image
from foveate.data.readers.base import Address, Known, OpenOptions, Plane, any_band
from foveate.data.readers.derived import Derived, OrientedReader
from foveate.data.readers.gdal import GdalReader, open_dataset, reading
from foveate.data.readers.pyramid import ImageReader
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import ImageReadError
from foveate.files import TemporaryFolder, refuse_existing, written
from foveate.geometry import BoolArray, Raster, Size, Window, ceil_div, diagonal, halvings
from foveate.tiff.raster import Compression, Progress, TiffSource, write_plain_pyramid, write_pyramid

VARIABLE = "FOVEATE_CACHE"
CACHE_BYTES = 20 << 30  # of all files together; the ones used longest ago go first
# Slides often have levels four times as coarse each; a wider gap is one, and so is a last level of more pixels.
_WIDEST_STEP = 4.5
_MOST_PIXELS = 4_000_000
_STEP = 4  # the first level made has a sixteenth of the pixels
_SAMPLES, _SAMPLE_SIDE = 5, 64
_known_whole: set[tuple[int, int]] = set()


def convert(
    source: Path | str,
    destination: Path | str,
    *,
    overwrite: bool = False,
    tile: int = 512,
    compression: Compression = "deflate",
    labels: bool = False,
    plane: Plane | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a cloud-optimised TIFF with overviews: all bands, colours, mask, georeference and size of the pixels.

    Args:
        source: a file, folder or URL of an image: slides, Zarr and NumPy too. PNG and JPEG are decoded row by row,
            never whole.
        destination: the TIFF to write; it appears under its name only when complete.
        overwrite: replace an existing file.
        tile: side of a stored tile in pixels, a power of two from 64 to 4096.
        compression: "jpeg" loses detail and takes 8-bit images of 1 or 3 bands only; the others are lossless.
        labels: overviews pick one pixel instead of the mean, as class ids must not be blended. So they always do for
            files with a colour table or class names.
        plane: which plane of a file with several, see `open_image`.
        progress: called with the share done, from 0 to 1.

    Raises:
        ImageReadError: when the source is missing or damaged.
        UnsupportedImageError: when no reader can open the source.
        ConfigError: when tile or compression are not possible.
        ConfigError: when the destination does not end in .tif or .tiff.
        OutputExistsError: when it exists and `overwrite` is false.
        OutputWriteError: when writing failed.
    """
    destination = Path(destination)
    refuse_existing(destination, overwrite, [".tif", ".tiff"])
    with reading(str(source)), ExitStack() as opened:
        write_pyramid(
            _source(source, opened, plane), destination,
            overwrite=overwrite, tile=tile, compression=compression, labels=labels, progress=progress,
        )  # fmt: skip


def _source(place: Path | str, opened: ExitStack, plane: Plane | None) -> TiffSource:
    """Of what GDAL reads all that the file holds, also what a reader leaves out; of others what their reader gives."""
    reader = opened.enter_context(open_image(place, keep_alpha=True, plane=plane))
    stored = reader._inner if isinstance(reader, OrientedReader) else reader
    valid = reader.valid if reader.masked and reader.dtype.kind != "f" else None  # floats are not finite there
    source = TiffSource(
        reader.size, reader.bands, reader.dtype, reader.read,
        valid=valid, georeference=reader.georeference, resolution=reader.resolution,
    )  # fmt: skip
    if not isinstance(stored, GdalReader):
        return source
    whole = stored.dataset if isinstance(stored, RasterioReader) else open_dataset(stored._location)
    held = stored.source(opened.enter_context(whole))
    if stored is reader:
        return held
    return replace(
        source, valid=reader.valid if held.valid else None, nodata=held.nodata, codes=held.codes, describe=held.describe
    )


def with_overviews(reader: ImageReader, ended: Callable[[], bool] = lambda: False) -> ImageReader:
    """The same image with coarse levels where its file has too few; itself where it has enough.

    While they are made, `ended` is asked whether nobody waits for them any more; then they raise `CancelledError`.

    Only of images on this computer that are read by windows, in three bands or more: one band may be class ids, which
    must not be blended. The reader belongs to the result.
    """
    eligible = reader.random_access and reader.bands >= 3 and reader.path.exists()
    kept = _levels_before_gap(reader)
    return OverviewedReader(reader, kept, ended) if eligible and kept is not None else reader


class OverviewedReader(Derived):
    """An image whose coarse levels lie in another file, a tiled TIFF that is made when one of them is first read.

    It is kept in the folder that the environment variable FOVEATE_CACHE names, `~/.cache/foveate` by default, under a
    name that follows from the file and what it holds; where that cannot be written, in a temporary file. A damaged one
    is made anew. Processes and threads that need the same one wait for each other. Levels are means of means, as those
    of any pyramid are. So many of the image's own levels are kept.
    """

    def __init__(self, inner: ImageReader, kept: int, ended: Callable[[], bool]) -> None:
        super().__init__(inner)
        self._kept, self._ended = kept, ended
        self._factor = _STEP * round(inner._downsample(kept - 1))
        base = Size(ceil_div(inner.size.height, self._factor), ceil_div(inner.size.width, self._factor))
        self._base, coarse = base, halvings(base)
        # A last cell that is not whole is mirrored to be so.
        whole = Size(base.height * self._factor, base.width * self._factor)
        self._extents = (*map(inner._extent, range(kept)), *(whole,) * len(coarse))
        self.levels = (*inner.levels[:kept], *coarse)
        self.handles = inner.handles + len(coarse)
        self._overviews: RasterioReader | None = None
        self._damaged = False
        self._temporary: TemporaryFolder | None = None

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        if level < self._kept:
            return self._inner._level(level, window, ask)
        if self._overviews is None and not self._damaged:
            self._open()
        if self._overviews is None:  # making them needs what cannot be read
            found = self._from_inner(window, self._factor << (level - self._kept))
            return found if ask else Known(found.pixels, None)
        return self._overviews._level(level - self._kept, window, ask)

    def _from_inner(self, window: Window, factor: int) -> Known:
        size = window.size
        area = Window(window.top * factor, window.left * factor, size.height * factor, size.width * factor)
        return self._inner.read_known(area, size) if self.masked else Known(self._inner.read(area, size), None)

    def _open(self) -> None:
        try:
            path = self._made_in_cache()
            if path is None:
                self._temporary = TemporaryFolder()
                path = self._make(Path(self._temporary.name) / "overviews.tif")
        except ImageReadError:  # a place that is not asked for need not be whole
            self._damaged = True
        else:
            self._overviews = RasterioReader(Address.of(path), OpenOptions(bands=tuple(range(1, self.bands + 1))))

    def _made_in_cache(self) -> Path | None:
        """The file of the coarse levels in the cache, made where it is not there; None where that cannot be."""
        folder, name = cache_folder(), f"{_key(self._inner, self._factor)}.tif"
        if folder is None:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder / f"{name}.lock"):
                if _is_whole(folder / name):
                    os.utime(folder / name)  # used last now
                else:
                    self._make(folder / name)
                    _evict(folder, folder / name)
        except ImageReadError:
            raise
        except OSError:  # no right to write, no room
            return None
        return folder / name

    def _make(self, path: Path) -> Path:
        source = _coarse_source(self._base, self, lambda window: self._from_inner(window, self._factor))
        with written(path, overwrite=True) as partial:
            write_plain_pyramid(source, partial, report=self._go_on)
            _seal(partial)
        return path

    def _go_on(self, share: float) -> None:
        if self._ended():
            raise CancelledError

    def close(self) -> None:
        """Close both files; a temporary one is deleted."""
        super().close()
        if self._overviews is not None:
            self._overviews.close()
            self._overviews = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None


def _coarse_source(size: Size, image: ImageReader, read: Callable[[Window], Known]) -> TiffSource:
    """A coarse level of an image; where nothing is known it holds NaN, the value that means so, or a mask says so."""
    values = {value for band in image.nodata for value in band[:1]} if all(image.nodata) else set()
    hole = math.nan if image.dtype.kind == "f" else values.pop() if len(values) == 1 else None

    def pixels(window: Window) -> Raster:
        found, known = read(window)
        return found if known is None else np.where(known, found, 0 if hole is None else hole).astype(image.dtype)

    def valid(window: Window) -> BoolArray:
        return any_band(read(window).known, window)

    masked = image.masked and hole is None
    return TiffSource(size, image.bands, image.dtype, pixels, valid=valid if masked else None, nodata=hole)


def _seal(path: Path) -> None:
    """Append a checksum, which readers of TIFF do not look at."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)


def _is_whole(path: Path) -> bool:
    """Whether a file is there as it was made; each is read once in a process."""
    if not path.exists():
        return False
    about = path.stat()
    if (about.st_ino, about.st_size) not in _known_whole:
        digest, left = hashlib.sha256(), about.st_size - hashlib.sha256().digest_size
        with path.open("rb") as file:
            while left > 0 and (piece := file.read(min(left, 1 << 22))):
                digest.update(piece)
                left -= len(piece)
            if file.read() != digest.digest():
                return False
        _known_whole.add((about.st_ino, about.st_size))
    return True


def cache_folder() -> Path | None:
    """Where coarse levels are kept: as the environment variable says, nowhere when it is empty."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foveate"
    return Path(text).expanduser() if text else None


def _levels_before_gap(reader: ImageReader) -> int | None:
    """How many levels lie before a step that is too wide, or None when no step is; the last one may be too large."""
    for level in range(len(reader.levels) - 1):
        if reader._downsample(level + 1) > _WIDEST_STEP * reader._downsample(level):
            return level + 1 if reader.levels[level].pixels > _MOST_PIXELS else None
    return len(reader.levels) if reader.levels[-1].pixels > _MOST_PIXELS else None


def _key(reader: ImageReader, factor: int) -> str:
    """Name of the levels: by the file, when it was written, and samples of its pixels along the diagonal."""
    about = reader.path.stat()
    total = hashlib.sha256(f"{reader.path.resolve()} {about.st_size} {about.st_mtime_ns}".encode())
    total.update(f"{reader.size} {reader.bands} {reader.dtype} {factor} {reader.masked} {reader.nodata}".encode())
    for window in diagonal(reader.size, _SAMPLES, _SAMPLE_SIDE):
        total.update(reader.read(window).tobytes())
    return total.hexdigest()[:32]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for whoever holds the lock, and hold it; where the file system has none, work may be done twice."""
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _evict(folder: Path, newest: Path) -> None:
    """Remove the files used longest ago until the rest fits; who has one open can read on."""
    files = sorted(folder.glob("*.tif"), key=lambda path: path.stat().st_mtime, reverse=True)
    held = newest.stat().st_size
    for path in files:
        if path != newest:
            held += path.stat().st_size
            if held > CACHE_BYTES:
                path.unlink(missing_ok=True)
