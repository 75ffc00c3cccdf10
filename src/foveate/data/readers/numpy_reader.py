"""NumPy's files (.npy), read through a memory map."""

from __future__ import annotations

from typing import Any

import numpy as np

from foveate.data.readers.axes import ImageAxes, pixel_type
from foveate.data.readers.location import Location
from foveate.data.readers.options import OpenOptions
from foveate.data.readers.pyramid import PyramidReader
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.types import Raster

_MAGIC = b"\x93NUMPY"


class NumpyReader(PyramidReader):
    """Reads windows of an array in a `.npy` file: (H, W), (H, W, bands) or (bands, H, W).

    Of three axes the shortest, which must be the first or the last, is that of the bands. There is no pyramid: wide
    views read every pixel.

    Args:
        location: the file.

    Raises:
        ImageReadError: when the file is shorter than its header says.
        UnsupportedImageError: when it is no image, or holds Python objects.
    """

    format = "NPY"

    def __init__(self, location: Location) -> None:
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


def _mapped(location: Location) -> np.memmap[Any, Any]:
    try:
        array: np.memmap[Any, Any] = np.load(location.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OverflowError) as error:
        if isinstance(error, OverflowError) or "mmap length" in str(error):
            raise ImageReadError(f"could not read {location}: {error}; the file is damaged or incomplete") from error
        raise UnsupportedImageError(f"NumPy cannot open {location}: {error}") from None
    return array


def open_numpy(location: Location, options: OpenOptions) -> NumpyReader | None:
    """The registry's entry: None when the file does not begin as a `.npy` file does."""
    del options
    if not location.is_local or not location.path.is_file():
        return None
    with location.path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
    return NumpyReader(location)
