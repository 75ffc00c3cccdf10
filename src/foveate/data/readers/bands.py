"""`BandFiles`: one image whose bands lie in several files, as Sentinel-2 and Landsat come: `scene_{band}.jp2`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from foveate.data.readers.base import BAND, SEPARATORS, Known
from foveate.data.readers.derived import resized
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Georeference, Size, Window
from foveate.types import BoolArray


def is_pattern(path: Path | str) -> bool:
    """Whether a path stands for several files, one for each band."""
    return BAND in str(path)


def band_files(path: Path | str, names: Sequence[str] | None = None) -> dict[str, Path]:
    """The files of a path with `{band}` by the names of their bands: those given, or all that are there, sorted.

    Raises:
        ImageReadError: naming a file that is not there.
    """
    text = str(path)
    if names is None:
        before, _, after = Path(text).name.partition(BAND)
        files = sorted(Path(text).parent.iterdir()) if Path(text).parent.is_dir() else []
        fits = re.compile(f"{re.escape(before)}([^{re.escape(SEPARATORS)}]+){re.escape(after)}")
        found = {match[1]: file for file in files if (match := fits.fullmatch(file.name))}
        if not found:
            raise ImageReadError(f"no image at {text}: no file has this name with something for {BAND}")
        return found
    found = {name: Path(text.replace(BAND, name)) for name in names}
    missing = [str(file) for file in found.values() if not file.exists()]
    if missing:
        raise ImageReadError(f"{text} lacks {', '.join(missing)}; data.band_files names {', '.join(names)}")
    return found


def pattern_of(path: Path, names: Sequence[str]) -> Path:
    """The pattern of a file's name that holds the name of a band, the last one; the path itself where it holds none."""
    fits = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, names))})(?![A-Za-z0-9])")
    places = list(fits.finditer(path.name))
    if is_pattern(path) or not places:
        return path
    start, end = places[-1].span()
    return path.with_name(path.name[:start] + BAND + path.name[end:])


class BandFiles(ImageReader):
    """Reads windows of several files as bands of one image, on the grid of the finest.

    Args:
        path: with `{band}`.
        parts: an open reader of each file, by the name of its band; they belong to this one.
    """

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
        return _joined([part._level(self._level_of(part, level), window, ask) for part in self._parts])

    def _extent(self, level: int) -> Size:
        return self._parts[0]._extent(self._level_of(self._parts[0], level))

    def _level_of(self, part: ImageReader, level: int) -> int:
        return part.levels.index(self.levels[level])

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
    wanted, found = one.coarser(times).transform, other.transform
    pixel = max(abs(wanted[0]), abs(wanted[1]), abs(wanted[3]), abs(wanted[4]))
    near = max(abs(wanted[k] - found[k]) for k in (2, 5)) <= pixel / 2
    alike = max(abs(wanted[k] - found[k]) for k in (0, 1, 3, 4)) <= 1e-6 * pixel
    return one.crs == other.crs and near and alike


def _joined(found: Sequence[Known]) -> Known:
    """The bands of all, and which values are known."""
    pixels = np.concatenate([one.pixels for one in found])
    if all(one.known is None for one in found):
        return Known(pixels, None)
    masks = [np.ones(one.pixels.shape, np.bool_) if one.known is None else one.known for one in found]
    return Known(pixels, np.concatenate(masks))


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
