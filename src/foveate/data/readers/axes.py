"""Arrays as images: which axis is which, and which type their pixels have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.errors import UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.types import Raster


def pixel_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The type in which pixels of a stored type are returned: the machine's byte order, and truth values as uint8.

    Raises:
        UnsupportedImageError: when they are no real numbers.
    """
    if dtype.kind not in "buif":
        raise UnsupportedImageError(f"{name} holds {dtype}; an image holds real numbers")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


@dataclass(frozen=True, slots=True)
class ImageAxes:
    """Which axis of an array is which.

    Attributes:
        row, col: their places.
        band: its place; None for one band without an axis.
        count: number of axes; those that are neither have length 1.
    """

    row: int
    col: int
    band: int | None
    count: int

    @classmethod
    def named(cls, names: Sequence[str], shape: Sequence[int], image: str) -> ImageAxes:
        """From names such as "tczyx".

        Raises:
            UnsupportedImageError: naming an axis that is missing, or is longer than 1 and no axis of an image.
        """
        _check_filled(shape, image)
        places = {name.lower(): place for place, name in enumerate(names)}
        if not {"x", "y"} <= places.keys() or len(names) != len(shape):
            raise UnsupportedImageError(
                f"{image} has the axes {list(names)} for shape {list(shape)}; needed are y and x"
            )
        for name, place in places.items():
            if name not in ("c", "y", "x") and shape[place] != 1:
                raise UnsupportedImageError(
                    f"{image} has {shape[place]} places along the axis {name!r}; an image has one: store a single one"
                )
        return cls(places["y"], places["x"], places.get("c"), len(shape))

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
        result: list[slice | int] = [0] * self.count
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
        raise UnsupportedImageError(f"{image} has shape {list(shape)}; an image has no empty axis")
