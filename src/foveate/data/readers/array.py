"""An image that is already in memory, read through the same contract."""

from __future__ import annotations

from pathlib import Path

from foveate.data.readers.base import Georeference, Resolution
from foveate.data.readers.memory import MemoryPyramid
from foveate.data.readers.pyramid import PyramidReader
from foveate.errors import UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.types import Raster


class ArrayReader(PyramidReader):
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
        return self._open().extent(level)

    def _read_level(self, level: int, window: Window) -> Raster:
        return self._open().read_level(level, window)

    def _open(self) -> MemoryPyramid:
        if self._pyramid is None:
            raise ValueError(f"{self.path} is closed")
        return self._pyramid

    def close(self) -> None:
        """Let go of the array."""
        self._pyramid = None
