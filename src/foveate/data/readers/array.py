"""Arrays as images, in memory with a pyramid or stored: which axis is which, and which type their pixels have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from foveate.data.readers.base import Address, NoData, OpenOptions, Plane, first_bytes, known_values
from foveate.data.readers.pyramid import STRIP_BYTES, ImageReader
from foveate.errors import ImageReadError, SeveralPlanesError, UnsupportedImageError
from foveate.geometry import BoolArray, Georeference, Raster, Resolution, Size, Window, ceil_div, halvings

_MAGIC = b"\x93NUMPY"


def pixel_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The type in which pixels of a stored type are returned: the machine's byte order, and truth values as uint8.

    Raises:
        UnsupportedImageError: when they are no real numbers.
    """
    if dtype.kind not in "buif":
        raise UnsupportedImageError(f"{name} holds {dtype}; an image holds real numbers")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def planes_chosen(counts: Mapping[str, int], plane: Plane | None, image: str) -> dict[str, int]:
    """Which place, from 0, an image has along each axis that is not one of bands, rows or columns.

    Of axes with one place none need be chosen; a plane is a number from 1 where one axis has several, else by name.

    Raises:
        SeveralPlanesError: naming the axes of which no place was chosen, or a place that is not there.
    """
    several = {name: count for name, count in counts.items() if count > 1}
    chosen = dict(plane) if isinstance(plane, Mapping) else {}
    if isinstance(plane, int) and len(several) == 1:
        chosen = dict.fromkeys(several, plane)
    missing = {name: count for name, count in several.items() if name not in chosen}
    if missing:
        have = " and ".join(f"{count} along {name}" for name, count in several.items())
        example = ", ".join(f"{name}: 1" for name in several)
        bands = ", or data.plane=bands to use the pages as bands" if "page" in several else ""
        raise SeveralPlanesError(
            f"{image} holds several planes, {have}; choose one with data.plane={{{example}}}, counted from 1{bands}. "
            "`foveate convert --plane` writes a single plane"
        )
    for name, count in several.items():
        if not 1 <= chosen[name] <= count:
            raise SeveralPlanesError(f"{image} has {count} planes along {name}, counted from 1; got {chosen[name]}")
    return {name: chosen[name] - 1 if name in several else 0 for name in counts}


@dataclass(frozen=True, slots=True)
class ImageAxes:
    """Which axis of an array is which, by their places."""

    row: int
    col: int
    band: int | None  # None for one band without an axis
    places: tuple[int, ...]  # where the image lies along each axis that is neither

    @classmethod
    def named(cls, names: Sequence[str] | None, shape: Sequence[int], image: str, plane: Plane | None = None) -> Self:
        """From names such as "tczyx"; without any, those of `guessed`.

        Raises:
            UnsupportedImageError: naming an axis that is missing.
        """
        if names is None:
            return cls.guessed(shape, image)
        _check_filled(shape, image)
        places = {name.lower(): place for place, name in enumerate(names)}
        if not {"x", "y"} <= places.keys() or len(names) != len(shape):
            raise UnsupportedImageError(
                f"{image} has the axes {list(names)} for shape {list(shape)}; needed are y and x"
            )
        others = {name: shape[place] for name, place in places.items() if name not in ("c", "y", "x")}
        chosen = planes_chosen(others, plane, image)
        at = tuple(chosen.get(name.lower(), 0) for name in names)
        return cls(places["y"], places["x"], places.get("c"), at)

    @classmethod
    def guessed(cls, shape: Sequence[int], image: str) -> Self:
        """(H, W), (H, W, bands) or (bands, H, W): of three axes the shortest, first or last, is that of the bands.

        Of more than three axes those of length 1 are left out, the first ones first.

        Raises:
            UnsupportedImageError: when the number of axes is another, or two of three are the shortest.
        """
        _check_filled(shape, image)
        kept = list(range(len(shape)))
        while len(kept) > 3 and 1 in [shape[place] for place in kept]:
            kept.remove(next(place for place in kept if shape[place] == 1))
        lengths, first = [shape[place] for place in kept], (0,) * len(shape)
        if len(kept) == 2:
            return cls(kept[0], kept[1], None, first)
        if len(kept) == 3 and lengths[0] < min(lengths[1:]):
            return cls(kept[1], kept[2], kept[0], first)
        if len(kept) == 3 and lengths[2] < min(lengths[:2]):
            return cls(kept[0], kept[1], kept[2], first)
        raise UnsupportedImageError(
            f"{image} has shape {list(shape)}; an image is (H, W), (H, W, bands) or (bands, H, W), with fewer bands "
            f"than rows and columns"
        )

    def size(self, shape: Sequence[int]) -> Size:
        """Height and width of an array."""
        return Size(shape[self.row], shape[self.col])

    def bands(self, shape: Sequence[int]) -> int:
        """Number of bands of an array."""
        return 1 if self.band is None else shape[self.band]

    def index(self, window: Window) -> tuple[slice | int, ...]:
        """What to take from an array for a window."""
        result: list[slice | int] = list(self.places)
        result[self.row], result[self.col] = window.within(Window(0, 0, 1, 1))
        if self.band is not None:
            result[self.band] = slice(None)
        return tuple(result)

    def ordered(self, part: Raster) -> Raster:
        """What `index` took, as (bands, h, w)."""
        kept: list[int] = sorted(place for place in (self.row, self.col, self.band) if place is not None)
        if self.band is None:
            part, kept = part[None], [-1, *kept]
        band = -1 if self.band is None else self.band
        return part.transpose([kept.index(place) for place in (band, self.row, self.col)])


def _check_filled(shape: Sequence[int], image: str) -> None:
    if 0 in shape:
        raise UnsupportedImageError(f"{image} has shape {list(shape)}; no axis of an image may be empty")


class AxesReader(ImageReader):
    """Reads windows of stored arrays, each a level."""

    _arrays: Sequence[Any] = ()  # none once it is closed

    def _take(self, arrays: Sequence[Any], axes: ImageAxes) -> None:
        """Set what arrays and their axes say."""
        self._arrays, self._axes, finest = arrays, axes, arrays[0]
        self.dtype = pixel_type(finest.dtype, self.location)
        self.masked = self.dtype.kind == "f"
        self.bands, self.size = axes.bands(finest.shape), axes.size(finest.shape)
        self.levels = tuple(axes.size(array.shape) for array in arrays)

    def _read_level(self, level: int, window: Window) -> Raster:
        if not self._arrays:
            raise ValueError(f"{self.location} is closed")
        return np.array(self._axes.ordered(self._stored(level, window)), self.dtype, order="C")

    def _stored(self, level: int, window: Window) -> Raster:
        return np.asarray(self._arrays[level][self._axes.index(window)])

    def close(self) -> None:
        """Let go of the arrays."""
        self._arrays = ()


class NumpyReader(AxesReader):
    """Reads windows of an array in a `.npy` file: (H, W), (H, W, bands) or (bands, H, W).

    Of three axes the shortest, which must be the first or the last, is that of the bands. There is no pyramid: wide
    views read every pixel.
    """

    format = "NPY"

    def __init__(self, location: Address) -> None:
        self.path, array = location.path, _mapped(location)
        self._take([array], ImageAxes.guessed(array.shape, str(location)))


def _mapped(location: Address) -> np.memmap[Any, Any]:
    try:
        array: np.memmap[Any, Any] = np.load(location.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OverflowError) as error:
        if isinstance(error, OverflowError) or "mmap length" in str(error):
            raise ImageReadError(f"could not read {location}: {error}; the file is damaged or incomplete") from error
        raise UnsupportedImageError(f"NumPy cannot open {location}: {error}") from None
    return array


def open_numpy(location: Address, options: OpenOptions) -> NumpyReader | None:
    """The registry's entry: None when the file does not begin as a `.npy` file does."""
    ours = location.is_local and location.path.is_file() and first_bytes(location.path, len(_MAGIC)) == _MAGIC
    return NumpyReader(location) if ours else None


class ArrayReader(ImageReader):
    """Reads windows of an array; the array is not copied, its pyramid is made when first needed.

    A level's pixel (i, j) is the rounded mean of four pixels of the one below. Rounding is half to even, so that levels
    do not get brighter one after the other. A last odd row or column is repeated, so that every other pixel is exact;
    what is mirrored beyond it lies up to two pixels of the level off. Values that mean nothing count in no mean; where
    all four do one stands.

    Args:
        array: (bands, H, W) or (H, W), of real numbers.
        name: what to call it in messages.
        georeference: its place on the ground, if known.
        resolution: size of a pixel in metres, if known.
        valid: (H, W) where there is data, if not everywhere.

    Raises:
        UnsupportedImageError: when the array has another number of axes, an empty axis or complex values.
    """

    format = "array"
    handles = 0

    def __init__(
        self,
        array: Raster,
        name: str = "<array>",
        georeference: Georeference | None = None,
        resolution: Resolution | None = None,
        valid: BoolArray | None = None,
    ) -> None:
        if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
            raise UnsupportedImageError(
                f"an image must be a non-empty array (H, W) or (bands, H, W) of real numbers, "
                f"got shape {array.shape} of {array.dtype}"
            )
        # Tensors have the machine's byte order, and a mean of truth values is not one.
        base = (array if array.ndim == 3 else array[None]).astype(pixel_type(array.dtype, name), copy=False)
        self._made = [(base, valid)]  # levels, and where they hold data
        self.path, self.georeference, self.resolution = Path(name), georeference, resolution
        self.bands, self.dtype, self.size = base.shape[0], base.dtype, Size(*base.shape[1:])
        self.levels, self.resident_bytes = halvings(self.size), base.nbytes
        self._extents = padded(self.levels)
        self.masked = base.dtype.kind == "f" or valid is not None

    def _read_level(self, level: int, window: Window) -> Raster:
        rows, cols = window.within(Window.of(self.size))
        return self._of(level)[0][:, rows, cols]

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        valid = self._of(level)[1]
        return None if valid is None else valid[window.within(Window.of(self.size))].copy()

    def _of(self, level: int) -> tuple[Raster, BoolArray | None]:
        if not self._made:
            raise ValueError(f"{self.path} is closed")
        while len(self._made) <= level:
            finer, valid = self._made[-1]
            coarser = None if valid is None else np.logical_or.reduce(_quads(valid[None]))[0]
            self._made.append((halved(finer, valid, self.nodata), coarser))
        return self._made[level]

    def close(self) -> None:
        """Let go of the array."""
        self._made = []


def padded(levels: Sequence[Size]) -> tuple[Size, ...]:
    """Level-0 pixels that each of the levels covers, with the repeated ones."""
    return tuple(Size(one.height << level, one.width << level) for level, one in enumerate(levels))


def halved(pixels: Raster, valid: BoolArray | None = None, nodata: NoData = ()) -> Raster:
    """The means of 2 x 2 pixels of (bands, H, W), strip by strip, in the same dtype; see `ArrayReader`."""
    bands, height, width = pixels.shape
    result = np.empty((bands, ceil_div(height, 2), ceil_div(width, 2)), pixels.dtype)
    step = max(1, STRIP_BYTES // (bands * width * 8))
    for row in range(0, result.shape[1], step):
        rows = slice(2 * row, 2 * (row + step))
        strip = pixels[:, rows]
        known = known_values(strip, None if valid is None else valid[rows], nodata)
        result[:, row : row + step] = _halved_strip(strip) if known is None else _halved_known(strip, known)
    return result


def _even(strip: Raster) -> Raster:
    """With a last odd row or column repeated."""
    height, width = strip.shape[-2:]
    return np.pad(strip, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge") if height % 2 or width % 2 else strip


def _quads(strip: Raster) -> Raster:
    """The four pixels of each 2 x 2 of (bands, h, w): (4, bands, h / 2, w / 2), sides rounded up."""
    even = _even(strip)
    return np.stack([even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def _halved_known(strip: Raster, known: BoolArray) -> Raster:
    pixels, there = _quads(strip), _quads(known)
    count = there.sum(axis=0)
    mean = np.where(there, pixels, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    means: Raster = np.where(count > 0, mean if strip.dtype.kind == "f" else np.rint(mean), pixels[0])
    return means.astype(strip.dtype)


def _halved_strip(strip: Raster) -> Raster:
    strip, dtype = _even(strip), strip.dtype
    # Integers are added as integers that hold the sum of four, which takes a sixth of the time of floats.
    small = dtype.kind in "ui" and dtype.itemsize <= 4
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}") if small else np.result_type(dtype, np.float32)
    rows = np.add(strip[:, ::2], strip[:, 1::2], dtype=wide)
    total: Raster = rows[..., ::2] + rows[..., 1::2]
    if wide.kind == "f":
        return (total / 4 if dtype.kind == "f" else np.rint(total / 4)).astype(dtype)
    total = (total + ((total >> 2) & 1) + 1) >> 2  # half to even, by the last bit of the floored fourth
    return total.astype(dtype)
