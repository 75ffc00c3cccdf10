"""Arrays as images, in memory or mapped from a .npy file: which axis is which, and which type their pixels have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.readers.base import Address, OpenOptions, Plane, first_bytes
from foveate.data.readers.pyramid import ImageReader, MemoryPyramid
from foveate.errors import ImageReadError, SeveralPlanesError, UnsupportedImageError
from foveate.geometry import Georeference, Resolution, Size, Window
from foveate.types import Raster

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
    count: int  # number of axes
    places: tuple[int, ...] = ()  # where the image lies along each axis that is neither

    @classmethod
    def named(cls, names: Sequence[str], shape: Sequence[int], image: str, plane: Plane | None = None) -> ImageAxes:
        """From names such as "tczyx".

        Raises:
            UnsupportedImageError: naming an axis that is missing.
        """
        _check_filled(shape, image)
        places = {name.lower(): place for place, name in enumerate(names)}
        if not {"x", "y"} <= places.keys() or len(names) != len(shape):
            raise UnsupportedImageError(
                f"{image} has the axes {list(names)} for shape {list(shape)}; needed are y and x"
            )
        others = {name: shape[place] for name, place in places.items() if name not in ("c", "y", "x")}
        chosen = planes_chosen(others, plane, image)
        at = tuple(chosen.get(name.lower(), 0) for name in names)
        return cls(places["y"], places["x"], places.get("c"), len(shape), at)

    @classmethod
    def guessed(cls, shape: Sequence[int], image: str) -> ImageAxes:
        """(H, W), (H, W, bands) or (bands, H, W): of three axes the shortest, first or last, is that of the bands.

        Of more than three axes those of length 1 are left out, the first ones first.

        Raises:
            UnsupportedImageError: when the number of axes is another, or two of three are the shortest.
        """
        _check_filled(shape, image)
        kept = list(range(len(shape)))
        while len(kept) > 3 and 1 in [shape[place] for place in kept]:
            kept.remove(next(place for place in kept if shape[place] == 1))
        lengths = [shape[place] for place in kept]
        if len(kept) == 2:
            return cls(kept[0], kept[1], None, len(shape))
        if len(kept) == 3 and lengths[0] < min(lengths[1:]):
            return cls(kept[1], kept[2], kept[0], len(shape))
        if len(kept) == 3 and lengths[2] < min(lengths[:2]):
            return cls(kept[0], kept[1], kept[2], len(shape))
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
        result: list[slice | int] = list(self.places) or [0] * self.count
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


class ArrayReader(ImageReader):
    """Reads windows of an array; the array is not copied, its pyramid is made when first needed.

    Args:
        array: (bands, H, W) or (H, W), of real numbers.
        name: what to call it in messages.
        georeference: its place on the ground, if known.
        resolution: size of a pixel in metres, if known.

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
    ) -> None:
        if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
            raise UnsupportedImageError(
                f"an image must be a non-empty array (H, W) or (bands, H, W) of real numbers, "
                f"got shape {array.shape} of {array.dtype}"
            )
        base = array if array.ndim == 3 else array[None]
        # Tensors have the machine's byte order, and a mean of truth values is not one.
        base = base.astype("uint8" if base.dtype.kind == "b" else base.dtype.newbyteorder("="), copy=False)
        self._pyramid: MemoryPyramid | None = MemoryPyramid(base)
        self.path, self.georeference, self.resolution = Path(name), georeference, resolution
        self.bands, self.dtype = base.shape[0], base.dtype
        self.size, self.levels = Size(*base.shape[1:]), self._pyramid.sizes
        self.masked, self.resident_bytes = base.dtype.kind == "f", base.nbytes

    def _extent(self, level: int) -> Size:
        return self._open()._extent(level)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._open()._read_level(level, window)

    def _open(self) -> MemoryPyramid:
        if self._pyramid is None:
            raise ValueError(f"{self.path} is closed")
        return self._pyramid

    def close(self) -> None:
        """Let go of the array."""
        self._pyramid = None


class NumpyReader(ImageReader):
    """Reads windows of an array in a `.npy` file: (H, W), (H, W, bands) or (bands, H, W).

    Of three axes the shortest, which must be the first or the last, is that of the bands. There is no pyramid: wide
    views read every pixel.
    """

    format = "NPY"

    def __init__(self, location: Address) -> None:
        self.path = location.path
        self._array: Raster | None = _mapped(location)
        self._axes = ImageAxes.guessed(self._array.shape, str(location))
        self.bands, self.dtype = self._axes.bands(self._array.shape), pixel_type(self._array.dtype, str(location))
        self.size: Size = self._axes.size(self._array.shape)
        self.levels, self.masked = (self.size,), self.dtype.kind == "f"

    def _read_level(self, level: int, window: Window) -> Raster:
        if self._array is None:
            raise ValueError(f"{self.path} is closed")
        part = self._axes.ordered(self._array[self._axes.index(window)])
        return np.array(part, self.dtype, order="C", subok=False)

    def close(self) -> None:
        """Let go of the map."""
        self._array = None


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
