"""What a tile of a layer holds: the picture itself, or codes that the page colours and reads out.

Codes are bytes. Of classes they are the class ids; of values 1 to 255 span the layer's range and 0 is unknown. So a
tile serves for the colours, for the value under the pointer and for hiding a class, and nothing is lost on the way.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from foveate.data.readers.pyramid import ImageReader, strips
from foveate.geometry import ByteArray, DoubleArray, Raster, Size, Window

Media: TypeAlias = Literal["jpg", "png"]
OpenReader: TypeAlias = Callable[[Path], ImageReader]
Pixels: TypeAlias = ByteArray  # (h, w, 3) colours or (h, w) codes
Draw: TypeAlias = Callable[[OpenReader, Window, Size], Pixels]
NOT_COUNTED = 255
NO, YES = 0, 1  # codes of the answer whether a pixel belongs to one of several overlapping classes
WRONG, RIGHT, TOO_MUCH = 1, 2, 3  # codes of errors; of a yes or no WRONG means that it was missed
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 88}
# Of values that the page still stretches, errors with them.
_FINE_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
_PNG: dict[str, Any] = {"format": "PNG", "compress_level": 3}
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
    # Under the centres of the pixels of the result, in whole numbers.
    rows, cols = (
        np.clip((2 * places + 1) * length // (2 * whole), 0, length - 1)
        for places, length, whole in zip(
            window.centres(size), (extent.height, extent.width), (reader.size.height, reader.size.width), strict=True
        )
    )
    result = np.empty((len(bands), size.height, size.width), reader.dtype)
    left, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
    for part in strips(rows, width * reader.bands * reader.dtype.itemsize):
        top = int(rows[part][0])
        pixels = read(Window(top, left, int(rows[part][-1]) - top + 1, width))
        result[:, part] = pixels[np.ix_(np.asarray(bands), rows[part] - top, cols - left)]
    return result


def _source(reader: ImageReader, downsample: float) -> tuple[Callable[[Window], Raster], Size]:
    """How to read windows of the coarsest level that is fine enough, and that level's size."""
    if not reader.random_access:
        return reader.read, reader.size
    levels, finest = reader.levels, reader.size.width
    # 1% off is allowed, as pyramids round their sizes.
    level = max(i for i, size in enumerate(levels) if i == 0 or finest / size.width <= 1.01 * downsample)
    return lambda window: reader._read_level(level, window), levels[level]


class Contrast(NamedTuple):
    """Which values of a picture, or of one of its bands, are drawn black and white at first."""

    name: str = ""  # of the band; empty of all bands together
    values: tuple[float, ...] = tuple(map(float, range(256)))  # of the codes 0 to 255 of its tiles, rising
    # Shares of the codes, of which the values become black and white: at first, and to show all that was seen.
    black: float = 0
    white: float = 1
    whole: tuple[float, float] = (0, 1)


class Rendering(NamedTuple):
    """How a layer's tiles are made."""

    draw: Draw  # makes the pixels of a window, at a size
    paths: tuple[Path, ...] = ()  # the files that are read
    media: Media = "png"  # file type of a tile: "jpg" of pictures, "png" of codes
    fine: bool = False  # whether a JPEG keeps more, as its codes are spread wider when shown


def picture(path: Path, bands: Sequence[int], contrasts: Sequence[Contrast]) -> Rendering:
    """An image as colours, each the mean over its pixel; the lowest code where no value means something.

    Args:
        path: the image.
        bands: 1-based numbers of the bands that are red, green and blue.
        contrasts: one of all bands, or one of each; beyond its values codes are clipped.
    """
    tables, codes = np.array([one.values for one in contrasts]), np.arange(256)
    plain = bool((tables == codes).all())

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        pixels, known = open_reader(path).read_known(window, size)
        shown = np.empty((*pixels.shape[1:], len(bands)), np.uint8)
        for place, (band, meant) in enumerate(zip(bands, np.broadcast_to(tables, (len(bands), 256)), strict=True)):
            one = pixels[band - 1] if known is None else np.where(known[band - 1], pixels[band - 1], meant[0])
            if one.dtype != np.uint8 or not plain:
                one = np.rint(np.interp(np.nan_to_num(one.astype(np.float64), nan=meant[0]), meant, codes))
            shown[..., place] = one
        return shown

    return Rendering(draw, (path,), "jpg", fine=not plain)


def spread(seen: DoubleArray, dtype: np.dtype[Any]) -> DoubleArray:
    """Values of the codes 0 to 255 for numbers that are no bytes: close together where most are, and up to both ends.

    Codes are shared out to the middle 96 % of the values, to all but 0.2 %, to all that were seen, and to what else
    there may be: the range of an integer type, ten times the seen range of floats. There they are ever wider apart.

    Args:
        seen: a sample of the values; none is taken as 0 and 1.
        dtype: of the image.

    Returns:
        256 values, strictly rising.
    """
    low, first, left, right, last, high = np.percentile(seen if seen.size else [0, 1], [0, 0.1, 2, 98, 99.9, 100])
    least = 1.0 if dtype.kind in "iu" else 256 * float(np.spacing(np.float32(max(abs(low), abs(high)))))
    high = max(high, low + least)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    ends = (limits.min, limits.max) if limits else (low - 10 * (high - low), high + 10 * (high - low))
    unit = max(right - left, (high - low) / 256)
    spans = [span for span in ((0.45, left, right), (0.25, first, last), (0.15, low, high)) if span[1] < span[2]]
    lowest, highest = (float(np.arcsinh((end - left) / unit)) for end in ends)
    places = [
        left + unit * np.sinh(np.linspace(lowest, highest, 2048)),
        *(np.linspace(start, end, 512) for _, start, end in spans),
    ]
    values = np.unique(np.concatenate(places).clip(*ends))
    codes = np.arcsinh((values - left) / unit) / (highest - lowest) * 0.15
    for share, start, end in spans:
        codes += share * np.clip((values - start) / (end - start), 0, 1)
    result: DoubleArray = np.interp(np.linspace(codes[0], codes[-1], 256), codes, values)
    return result


def ids(path: Path, label_map: Mapping[int, int] | None = None) -> Rendering:
    """Class ids of a raster of one band, each the one at the centre of its pixel; 255 where there is none.

    Args:
        path: the raster.
        label_map: value in the file -> class id; other values are not counted. None: the values are the ids.
    """
    # Its last entry, which is also -1, stands for all that is out of range.
    table = np.full(_LABEL_VALUES, NOT_COUNTED, np.uint8)
    named = {value: value for value in range(NOT_COUNTED)} if label_map is None else label_map
    table[list(named)] = list(named.values())

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        (found,) = read_nearest(open_reader(path), window, size)
        labels: Pixels = table[np.clip(found, -1, _LABEL_VALUES - 1).astype(np.intp)]
        return labels

    return Rendering(draw, (path,))


def values(
    path: Path,
    span: tuple[float, float],
    band: int = 1,
    *,
    gain: float = 1,
    offset: float = 0,
    unknown: float | None = None,
) -> Rendering:
    """Numbers, such as a confidence: picked where a stored value means unknown, as it must not be blended, else means.

    Args:
        path: a raster.
        span: the values of the codes 1 and 255; beyond them codes are clipped.
        band: 1-based.
        gain: value = gain * stored + offset.
        offset: see `gain`.
        unknown: stored value that means that nothing is known; NaN does always.
    """

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        reader = open_reader(path)
        if unknown is None:
            read = reader.read(window, size)[band - 1]
        else:
            (read,) = read_nearest(reader, window, size, (band - 1,))
        stored = read.astype(np.float64)
        lost = ~np.isfinite(stored) if unknown is None else ~np.isfinite(stored) | (stored == unknown)
        codes = _spread(np.where(lost, 0, gain * stored + offset), *span, 1)
        codes[lost] = 0
        return codes

    return Rendering(draw, (path,))


def passes(path: Path, bands: int) -> Rendering:
    """Which looks were made, of a map of passes: a bit for each of its at most 8 bands that is not 0."""

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        made = read_nearest(open_reader(path), window, size, range(bands)) > 0
        codes: Pixels = np.packbits(made, axis=0, bitorder="little")[0]
        return codes

    return Rendering(draw, (path,))


def answer(path: Path, band: int, meaning: Mapping[int, int] | None = None, unknown: float | None = None) -> Rendering:
    """Yes or no from a band of a raster, at the centre of each pixel: yes where it is not 0.

    Args:
        path: the raster.
        band: which, from 0.
        meaning: value in the file -> answer, where that is another; values that are not named are not counted.
        unknown: stored value that means that nothing is known.
    """

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        (found,) = read_nearest(open_reader(path), window, size, (band,))
        answers = (found > 0).astype(np.uint8) if meaning is None else np.full(found.shape, NOT_COUNTED, np.uint8)
        for value, code in (meaning or {}).items():
            answers[found == value] = code
        if unknown is not None:
            answers[found == unknown] = NOT_COUNTED
        return answers

    return Rendering(draw, (path,))


# Of a class without a mask.
NOWHERE = Rendering(lambda open_reader, window, size: np.full((size.height, size.width), NO, np.uint8))


def alone(answered: Rendering, code: int) -> Rendering:
    """One of several overlapping classes: its code where the answer is yes, else `NOT_COUNTED`."""

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        yes = answered.draw(open_reader, window, size) == YES
        return np.where(yes, np.uint8(code), np.uint8(NOT_COUNTED))

    return Rendering(draw, answered.paths)


def sets(answers: Sequence[tuple[int, Rendering]]) -> Rendering:
    """All classes of a pixel, from answers by code: bit k is that of code k; `NOT_COUNTED` where one class is not."""

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        codes = np.zeros((size.height, size.width), np.uint8)
        unknown = np.zeros(codes.shape, np.bool_)
        for code, answered in answers:
            found = answered.draw(open_reader, window, size)
            codes |= (found == YES).astype(np.uint8) << np.uint8(code)
            unknown |= found == NOT_COUNTED
        codes[unknown] = NOT_COUNTED
        return codes

    return Rendering(draw, tuple(dict.fromkeys(path for _, answered in answers for path in answered.paths)))


def differences(found: Rendering, truth: Rendering, *, by_kind: bool = False) -> Rendering:
    """Where a prediction differs from labels: WRONG or RIGHT; NOT_COUNTED where either has none.

    Args:
        found: codes of the prediction.
        truth: codes of the labels, of the same size.
        by_kind: both are yes or no, and what is in the prediction only is TOO_MUCH.
    """

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        guess, right = (side.draw(open_reader, window, size) for side in (found, truth))
        verdict = np.where(guess == right, np.uint8(RIGHT), np.uint8(WRONG))
        if by_kind:
            verdict[(guess == YES) & (right == NO)] = TOO_MUCH
        verdict[(right == NOT_COUNTED) | (guess == NOT_COUNTED)] = NOT_COUNTED
        return verdict

    return Rendering(draw, (*found.paths, *truth.paths))


def _spread(values: Raster, low: float, high: float, first: int) -> ByteArray:
    """Values from low to high as bytes from `first` to 255."""
    share = np.clip((np.nan_to_num(values.astype(np.float64)) - low) / max(high - low, 1e-12), 0, 1)
    return np.rint(first + share * (255 - first)).astype(np.uint8)


def encoded(pixels: ByteArray, rendering: Rendering) -> bytes:
    """Pixels as the bytes of a file: JPEG of colours, PNG of codes, which must not change."""
    buffer = io.BytesIO()
    how = _PNG if rendering.media == "png" else _FINE_JPEG if rendering.fine else _JPEG
    Image.fromarray(pixels).save(buffer, **how)
    return buffer.getvalue()
