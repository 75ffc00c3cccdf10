"""What a tile of a layer holds: the picture itself, or codes that the page colours and reads out.

Codes are bytes. Of classes they are the class ids; of values 1 to 255 span the layer's range and 0 is unknown. So a
tile serves for the colours, for the value under the pointer and for hiding a class, and nothing is lost on the way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.data.labels import strips
from foveate.data.readers.base import ImageReader
from foveate.data.readers.pyramid import PyramidReader
from foveate.geometry import Size, Window
from foveate.types import IntArray, LabelArray, Raster

Media: TypeAlias = Literal["jpg", "png"]
OpenReader: TypeAlias = Callable[[Path], ImageReader]
NOT_COUNTED = 255
_JPEG_QUALITY = 88
_LABEL_VALUES = 1 << 16


def read_nearest(reader: ImageReader, window: Window, size: Size, bands: Sequence[int] = (0,)) -> Raster:
    """Some bands of a window, each value the one under the centre of its pixel.

    The levels of a tiled file are trusted to be picked too, as those of class maps are. PNG and JPEG have none but the
    means of this library's readers, so that of them level 0 is read.

    Args:
        reader: of class ids.
        window: level-0 pixels; beyond the border the last pixel is repeated.
        size: height and width of the result, at most the window's own.
        bands: which, from 0.

    Returns:
        (bands, height, width), in the file's dtype.
    """
    read, extent = _source(reader, min(window.height / size.height, window.width / size.width))
    rows = _under(window.top, window.height, size.height, extent.height / reader.size.height, extent.height)
    cols = _under(window.left, window.width, size.width, extent.width / reader.size.width, extent.width)
    result = np.empty((len(bands), size.height, size.width), reader.dtype)
    left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
    for part in strips(rows, width * reader.bands * reader.dtype.itemsize):
        top = int(rows[part][0])
        pixels = read(Window(top, left, int(rows[part][-1]) - top + 1, width))
        result[:, part] = pixels[np.ix_(np.asarray(bands), rows[part] - top, cols - left)]
    return result


def _source(reader: ImageReader, downsample: float) -> tuple[Callable[[Window], Raster], Size]:
    """How to read windows of the coarsest level that is fine enough, and that level's size."""
    if not isinstance(reader, PyramidReader) or not reader.random_access:
        return reader.read, reader.size
    levels, finest = reader.levels, reader.size.width
    # 1% off is allowed, as pyramids round their sizes.
    level = max(i for i, size in enumerate(levels) if i == 0 or finest / size.width <= 1.01 * downsample)
    return lambda window: reader._read_level(level, window), levels[level]


def _under(start: int, length: int, count: int, scale: float, limit: int) -> IntArray:
    """Positions in the level under the centres of the pixels of the result."""
    centres = start + (np.arange(count) + 0.5) * (length / count)
    positions: IntArray = np.clip(np.floor(centres * scale).astype(np.int64), 0, limit - 1)
    return positions


class Rendering(Protocol):
    """How a layer's tiles are made.

    Attributes:
        media: file type of a tile: "jpg" of pictures, "png" of codes.
        paths: the files that are read.
    """

    @property
    def media(self) -> Media: ...  # noqa: D102

    @property
    def paths(self) -> tuple[Path, ...]: ...  # noqa: D102

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """The pixels of a window: (h, w, 3) colours or (h, w) codes."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as colours.

    Attributes:
        path: the image.
        bands: 1-based numbers of the bands that are red, green and blue.
        low, high: values shown as black and as white.
    """

    path: Path
    bands: tuple[int, int, int]
    low: float = 0
    high: float = 255
    media: ClassVar[Media] = "jpg"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image."""
        return (self.path,)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Colours (h, w, 3), each the mean over its pixel; black where no value means something."""
        wanted = [band - 1 for band in self.bands]
        pixels, known = open_reader(self.path).read_known(window, size)
        pixels = pixels[wanted] if known is None else np.where(known[wanted], pixels[wanted], self.low)
        if pixels.dtype != np.uint8 or (self.low, self.high) != (0, 255):
            pixels = _spread(pixels, self.low, self.high, 0)
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


@dataclass(frozen=True, slots=True)
class Ids:
    """Class ids.

    Attributes:
        path: a raster of one band of integers.
        label_map: value in the file -> class id; other values are not counted. None: the values are the ids.
    """

    path: Path
    label_map: tuple[tuple[int, int], ...] | None = None
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The raster."""
        return (self.path,)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> LabelArray:
        """Ids (h, w), each the one at the centre of its pixel; 255 where there is none."""
        (values,) = read_nearest(open_reader(self.path), window, size)
        ids: LabelArray = self._table()[np.clip(values, -1, _LABEL_VALUES - 1).astype(np.intp)]
        return ids

    def _table(self) -> LabelArray:
        """Id by value; its last entry, which is also -1, stands for all that is out of range."""
        table = np.full(_LABEL_VALUES, NOT_COUNTED, np.uint8)
        if self.label_map is None:
            table[:NOT_COUNTED] = np.arange(NOT_COUNTED)
        for value, label in self.label_map or ():
            table[value] = label
        return table


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers, such as a confidence or an expected field of view.

    Attributes:
        path: a raster.
        low, high: the values of the codes 1 and 255; beyond them codes are clipped.
        gain, offset: value = gain * stored + offset.
        unknown: stored value that means that nothing is known; NaN does always.
        band: 1-based.
    """

    path: Path
    low: float
    high: float
    gain: float = 1
    offset: float = 0
    unknown: float | None = None
    band: int = 1
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The raster."""
        return (self.path,)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Codes (h, w): picked where a stored value means unknown, as it must not be blended, else means."""
        stored = self._read(open_reader(self.path), window, size).astype(np.float64)
        lost = ~np.isfinite(stored) if self.unknown is None else ~np.isfinite(stored) | (stored == self.unknown)
        codes = _spread(np.where(lost, 0, self.gain * stored + self.offset), self.low, self.high, 1)
        codes[lost] = 0
        return codes

    def _read(self, reader: ImageReader, window: Window, size: Size) -> Raster:
        if self.unknown is not None:
            (values,) = read_nearest(reader, window, size, (self.band - 1,))
        else:
            values = reader.read(window, size)[self.band - 1]
        known: Raster = values
        return known


@dataclass(frozen=True, slots=True)
class Passes:
    """Which looks were made: a bit for each band that is not 0.

    Attributes:
        path: a map of passes.
        bands: how many there are, at most 8.
    """

    path: Path
    bands: int
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The map."""
        return (self.path,)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Codes (h, w), exact at full resolution."""
        made = read_nearest(open_reader(self.path), window, size, range(self.bands)) > 0
        codes: NDArray[np.uint8] = np.packbits(made, axis=0, bitorder="little")[0]
        return codes


def _spread(values: Raster, low: float, high: float, first: int) -> NDArray[np.uint8]:
    """Values from low to high as bytes from `first` to 255."""
    share = np.clip((np.nan_to_num(values.astype(np.float64)) - low) / max(high - low, 1e-12), 0, 1)
    return np.rint(first + share * (255 - first)).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], media: Media) -> bytes:
    """Pixels as the bytes of a file: JPEG of colours, PNG of codes, which must not change."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if media == "jpg":
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
