"""Readers on top of others: pixels of another size, a value everywhere, several files as the bands of one image."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foveate.data.readers._gdal_checks import stored_orientation
from foveate.data.readers.base import Address, Known, band_files
from foveate.data.readers.pyramid import ImageReader, strips
from foveate.errors import UnsupportedImageError
from foveate.geometry import BoolArray, Georeference, IntArray, Raster, Resolution, Size, Window
from foveate.patches.extraction import window_taps

# A stored level this much coarser than asked for is taken as it is, as pyramids round their sizes.
_TOLERANCE = 1.01


class Derived(ImageReader):
    """A reader on top of another: what it does not say itself is as the other has it, which is closed with it."""

    def __init__(self, inner: ImageReader) -> None:
        self._inner = inner
        for name in ImageReader.__annotations__:
            setattr(self, name, getattr(inner, name))

    def valid(self, window: Window) -> BoolArray:
        """Those of the other."""
        return self._inner.valid(window)

    def close(self) -> None:
        """Close the other."""
        self._inner.close()


class RescaledReader(Derived):
    """The image that another one would be on a grid of another size; every pixel is the mean over its footprint.

    It is made as it is read, from the coarsest stored level that is fine enough; coarser stored levels stay levels.
    Where the grid is finer than the image, pixels are repeated. The resolution is that of the inner level 0, where it
    is known better than by the inner reader.
    """

    def __init__(self, inner: ImageReader, size: Size, resolution: Resolution | None = None) -> None:
        super().__init__(inner)
        rows, cols = inner.size.height / size.height, inner.size.width / size.width
        known = resolution or inner.resolution
        self.size, self._size_in_file = size, inner.stored_size
        self.resolution = known and known.scaled(rows, cols)
        self.georeference = inner.georeference and inner.georeference.scaled(rows, cols)
        # Extents of the levels, in pixels of the new level 0.
        grid = size.height / inner.size.height, size.width / inner.size.width
        sides = [inner._extent(level).scaled(*grid) for level in range(len(inner.levels))]
        factors = [max(e.height / s.height, e.width / s.width) for e, s in zip(sides, inner.levels, strict=True)]
        self._base = max((level for level, factor in enumerate(factors) if factor <= _TOLERANCE), default=0)
        kept = [level for level in range(self._base + 1, len(sides)) if factors[level] > 1]
        self._sources, self._extents = (self._base, *kept), (size, *(sides[level] for level in kept))
        self._base_extent = size if self._base == 0 else sides[self._base]
        self.levels = (size, *(inner.levels[level] for level in kept))

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        if level > 0:
            return self._inner._level(self._sources[level], window, ask)
        plan = window_taps(window, window.size, self._base_extent, self._inner.levels[self._base])
        return self._resampled(lambda part: self._inner._level(self._base, part, ask), plan)

    def valid(self, window: Window) -> BoolArray:
        """Those of the other under the centres of the pixels."""
        rows = _under_centres(window.top, window.height, self.size.height, self._inner.size.height)
        cols = _under_centres(window.left, window.width, self.size.width, self._inner.size.width)
        left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
        result = np.empty((window.height, window.width), np.bool_)
        for part in strips(rows, width):
            top = int(rows[part][0])
            found = self._inner.valid(Window(top, left, int(rows[part][-1]) - top + 1, width))
            result[part] = found[np.ix_(rows[part] - top, cols - left)]
        return result


class FilledReader(Derived):
    """An image with a value in every place: what means nothing counts in no mean and becomes the fill of its band."""

    def __init__(self, inner: ImageReader, fill: Sequence[float]) -> None:
        super().__init__(inner)
        values = np.array(fill, np.float64)[:, None, None]
        if self.dtype.kind in "ui":
            values = np.rint(np.clip(values, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max))
        self._fill = values.astype(self.dtype)

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        return self._filled(self._inner._level(level, window, True), ask)

    def _read(self, window: Window, size: Size | None, ask: bool) -> Known:
        return self._filled(self._inner.read_known(window, size), ask)

    def _filled(self, found: Known, ask: bool) -> Known:
        """With what means nothing replaced, unless it is asked what does."""
        if ask or found.known is None:
            return found
        return Known(np.where(found.known, found.pixels, self._fill), None)


def _under_centres(start: int, count: int, length: int, inner: int) -> IntArray:
    """Inner positions under the centres of pixels, in whole numbers so that no window decides otherwise."""
    return (2 * np.arange(start, start + count, dtype=np.int64) + 1) * inner // (2 * length)


def size_at(reader: ImageReader, resolution: Resolution, pixel_size: float) -> Size:
    """Size of an image of this resolution on a grid of square pixels of this side, metres."""
    rows = round(reader.size.height * resolution.row / pixel_size)
    cols = round(reader.size.width * resolution.col / pixel_size)
    return Size(max(1, rows), max(1, cols))


def resized(reader: ImageReader, size: Size, resolution: Resolution | None = None) -> ImageReader:
    """The same image on a grid of this size; itself where that is its size already.

    The reader belongs to the result; the resolution is that of its level 0, where it is known better than by it.
    """
    return reader if reader.size == size else RescaledReader(reader, size, resolution)


class _Turn(NamedTuple):
    """What is done to stored pixels, in this order: rows and columns are exchanged, rows and columns reversed."""

    swapped: bool
    rows: bool
    cols: bool

    def __call__(self, pixels: Raster) -> Raster:
        """A view of (bands, h, w)."""
        pixels = pixels.transpose(0, 2, 1) if self.swapped else pixels
        return pixels[:, :: -1 if self.rows else 1, :: -1 if self.cols else 1]

    def size(self, stored: Size) -> Size:
        """Of an image that is stored in this size."""
        return Size(stored.width, stored.height) if self.swapped else stored

    def stored(self, window: Window, size: Size) -> Window:
        """Where a window of an image of this size, as shown, is stored."""
        top = size.height - window.bottom if self.rows else window.top
        left = size.width - window.right if self.cols else window.left
        here = Window(top, left, window.height, window.width)
        return Window(left, top, window.width, window.height) if self.swapped else here


# EXIF 2.32, 4.6.4 A, "Orientation".
_TURNS = {
    2: _Turn(False, False, True), 3: _Turn(False, True, True), 4: _Turn(False, True, False),
    5: _Turn(True, False, False), 6: _Turn(True, False, True), 7: _Turn(True, True, True), 8: _Turn(True, True, False),
}  # fmt: skip


class OrientedReader(Derived):
    """An image as it is shown, not as it is stored, by an orientation from 2 to 8, as EXIF numbers them."""

    def __init__(self, inner: ImageReader, orientation: int) -> None:
        turn = _TURNS[orientation]
        super().__init__(inner)
        self._turn, self.size, self._extents = turn, turn.size(inner.size), ()
        # Levels with a repeated last row would begin with it.
        whole = takewhile(lambda level: inner._extent(level) == inner.size, range(len(inner.levels)))
        self.levels = tuple(turn.size(inner.levels[level]) for level in whole)
        if self.resolution is not None and turn.swapped:
            self.resolution = Resolution(self.resolution.col, self.resolution.row)
        self.remarks = (*self.remarks, f"it is rotated according to its EXIF orientation, {orientation}")

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        pixels, known = self._inner._level(level, self._turn.stored(window, self.levels[level]), ask)
        return Known(self._turn(pixels), None if known is None else self._turn(known))

    def valid(self, window: Window) -> BoolArray:
        """Those of the image as it is stored."""
        valid: BoolArray = self._turn(self._inner.valid(self._turn.stored(window, self.size))[None])[0]
        return valid


def as_shown(reader: ImageReader, location: Address) -> ImageReader:
    """An open image, turned where its file says so and it lies at no place on the ground.

    Where there is a place, it is that of the stored pixels, as all programs for maps have it. Files on servers are not
    asked.
    """
    placed = reader.georeference is not None or not (location.is_local and location.path.is_file())
    orientation = 1 if placed else stored_orientation(location)
    return reader if orientation == 1 else OrientedReader(reader, orientation)


class BandFiles(ImageReader):
    """Reads windows of several files, by the names of their bands, as bands of one image on the grid of the finest."""

    def __init__(self, path: Path, parts: Mapping[str, ImageReader]) -> None:
        self.path = path
        self._parts, remarks = _on_one_grid(path, parts)
        first = self._parts[0]
        self.format, self.dtype, self.size = f"{len(parts)} files of {first.format}", first.dtype, first.size
        self.bands = sum(part.bands for part in self._parts)
        self.masked, self.palette = (any(getattr(p, name) for p in self._parts) for name in ("masked", "palette"))
        self.nodata = tuple(values for part in self._parts for values in part.nodata or ((),) * part.bands)
        self.band_names = tuple(
            name if part.bands == 1 else f"{name} {own or k + 1}"
            for name, part in zip(parts, self._parts, strict=True)
            for k, own in enumerate(part.band_names or ("",) * part.bands)
        )
        self.scaling = tuple(pair for part in self._parts for pair in part.scaling or ((1.0, 0.0),) * part.bands)
        self.remarks = (*remarks, *dict.fromkeys(remark for part in self._parts for remark in part.remarks))
        self.georeference, self.resolution = first.georeference, first.resolution
        self.levels = tuple(s for s in first.levels if all(s in part.levels for part in self._parts[1:]))
        self._extents = tuple(first._extent(first.levels.index(size)) for size in self.levels)
        self.random_access = all(part.random_access for part in self._parts)
        self.resident_bytes = sum(part.resident_bytes for part in self._parts)
        self.handles = sum(part.handles for part in self._parts)

    def also_nodata(self, value: float) -> None:
        """In every file."""
        super().also_nodata(value)
        for part in self._parts:
            part.also_nodata(value)

    def _read(self, window: Window, size: Size | None, ask: bool) -> Known:
        """Each file from its own pyramid."""
        return _joined([part._read(window, size, ask) for part in self._parts])

    def valid(self, window: Window) -> BoolArray:
        """Where any file holds data."""
        there: BoolArray = np.logical_or.reduce([part.valid(window) for part in self._parts])
        return there

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        size = self.levels[level]
        return _joined([part._level(part.levels.index(size), window, ask) for part in self._parts])

    def close(self) -> None:
        """Close all files."""
        for part in self._parts:
            part.close()


def open_bands(path: Path, names: Sequence[str] | None, open_file: Callable[[Path], ImageReader]) -> BandFiles:
    """Open the files of a path with `{band}` as one image: those of some bands, in order, or all that are there."""
    parts: dict[str, ImageReader] = {}
    try:
        for name, file in band_files(path, names).items():
            parts[name] = open_file(file)
        return BandFiles(path, parts)
    except Exception:
        for reader in parts.values():
            reader.close()
        raise


def _on_one_grid(path: Path, parts: Mapping[str, ImageReader]) -> tuple[list[ImageReader], list[str]]:
    """The files on the grid of the finest, and what is to be said of those that are coarser."""
    finest = max(parts.values(), key=lambda part: part.size.pixels)
    types = {name: part.dtype.name for name, part in parts.items()}
    if len(set(types.values())) > 1:
        raise UnsupportedImageError(f"the files of {path} hold different types: {_listed(types)}; convert some")
    result, remarks = [], []
    for name, part in parts.items():
        times = finest.size.height / part.size.height
        sizes = {other: f"{one.size.width} x {one.size.height}" for other, one in parts.items()}
        if times != finest.size.width / part.size.width or times != round(times):
            raise UnsupportedImageError(
                f"the files of {path} have different sizes ({_listed(sizes)}), none a whole multiple of the other; "
                f"resample them to one grid first"
            )
        if not _same_place(finest.georeference, part.georeference, times):
            raise UnsupportedImageError(f"the files of {path} lie at different places: {name} is not where others are")
        if times > 1:
            remarks.append(f"the pixels of {name} are {times:.0f} times as large as the finest; each is repeated")
        result.append(resized(part, finest.size))
    return result, remarks


def _same_place(one: Georeference | None, other: Georeference | None, times: float) -> bool:
    """Whether two grids, the second of pixels so many times as large, cover the same ground, to half a pixel."""
    if one is None or other is None:
        return one is other
    wanted, corner = np.array(one.coarser(times).transform), [2, 5]
    apart, pixel = np.abs(wanted - other.transform), np.abs(np.delete(wanted, corner)).max()
    near, alike = apart[corner].max() <= pixel / 2, np.delete(apart, corner).max() <= 1e-6 * pixel
    return bool(one.crs == other.crs and near and alike)


def _joined(found: Sequence[Known]) -> Known:
    """The bands of all, and which values are known."""
    pixels = np.concatenate([one.pixels for one in found])
    if all(one.known is None for one in found):
        return Known(pixels, None)
    masks = [np.ones(one.pixels.shape, np.bool_) if one.known is None else one.known for one in found]
    return Known(pixels, np.concatenate(masks))


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
