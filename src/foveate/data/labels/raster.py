"""`RasterLabels`: labels from a mask that any image reader opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.labels.place import Placed, Placement, Positions, Stretched
from foveate.data.labels.table import NO_CLASS, Meaning
from foveate.data.readers.base import ImageReader
from foveate.data.readers.decoded import DecodedReader
from foveate.data.readers.gdal import open_dataset
from foveate.data.readers.pyramid import STRIP_BYTES
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.membership import Exclusive, Membership
from foveate.types import BoolArray, IntArray, LabelArray


class MaskFile(NamedTuple):
    """What only the file of a mask knows.

    Attributes:
        colours: (n, 3) red, green and blue of each value, of masks with a colour table; else None.
        lossy: name of a format that changes values; empty for none.
    """

    colours: IntArray | None = None
    lossy: str = ""

    @classmethod
    def of(cls, reader: ImageReader) -> MaskFile:
        """Of files that GDAL reads; others have no colour table and change nothing."""
        if not isinstance(reader, RasterioReader | DecodedReader):
            return cls()
        with open_dataset(reader._location) as dataset:
            colours = dataset.colormap(1) if reader.palette else {}
            stored = dataset.tags(ns="IMAGE_STRUCTURE")
            compression = "JPEG" if dataset.driver == "JPEG" else stored.get("COMPRESSION", dataset.driver)
            lossy = "JPEG" in compression.split() or stored.get("COMPRESSION_REVERSIBILITY") == "LOSSY"
        table = np.array([colours[value][:3] for value in sorted(colours)], np.int64) if colours else None
        return cls(table, compression if lossy else "")


class RasterLabels:
    """A mask on the grid of its image; each pixel is that of the mask at its centre, never blended.

    Pixels that the mask says hold no data are not counted, unless the label map names their value.

    Args:
        mask: the open mask, or a function that gives it, for one that a cache may have closed meanwhile.
        meaning: what its values mean; also an attribute.
        placed: where the image lies in it; over the same pixels when None.
        size: of the image; of the mask when None.
        use_nodata: whether a value that is a class counts as no data where the mask says so.

    Attributes:
        colours: see `MaskFile`.

    Raises:
        DatasetError: when the mask cannot be one.
    """

    def __init__(
        self,
        mask: ImageReader | Callable[[], ImageReader],
        meaning: Meaning,
        placed: Placed | None = None,
        *,
        size: Size | None = None,
        use_nodata: bool = True,
    ) -> None:
        reader = mask() if callable(mask) else mask
        self._get: Callable[[], ImageReader] = mask if callable(mask) else lambda: reader
        self.location, self.size = reader.location, size or reader.size
        placed = placed or Placed(Stretched(self.size, reader.size))
        self._place: Placement = placed.placement
        self.notes: tuple[str, ...] = (placed.note,) if placed.note else ()
        self.meaning, self._use_nodata = meaning, use_nodata
        self.membership: Membership = Exclusive(meaning.ignore_index)
        file = MaskFile.of(reader)
        if file.lossy and not meaning.rounded:
            raise DatasetError(
                f"the mask {self.location} has lossy {file.lossy} compression; JPEG masks have noise at borders. Save "
                "masks as PNG or as lossless TIFF, or set data.round_labels=true to take the nearest allowed value of "
                "each pixel"
            )
        self.colours = file.colours
        self.notes = (*self.notes, *meaning.check(reader))

    def ids(self, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        """As `LabelSource.ids` says."""
        return self._ids(self._get(), rows, cols, counted)

    def _ids(self, mask: ImageReader, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        place = self._place.positions(rows, cols)
        result = np.full((len(rows), len(cols)), self.membership.ignore_index, np.uint8)
        inside = _inside(place, mask.size)
        if not inside.any():
            return result
        window = _around(place, mask.size)
        if window.size.pixels * mask.bands * mask.dtype.itemsize > STRIP_BYTES and len(rows) > 1:
            half = len(rows) // 2
            for part in (slice(None, half), slice(half, None)):
                result[part] = self._ids(mask, rows[part], cols, counted[part])
            return result
        values, lacking = self._stored(mask, place, window)
        ids = self.meaning.ids(values)
        if lacking is not None:
            ids = np.where(lacking & ~self._kept(values, ids), self.membership.ignore_index, ids)
        return self._checked(values, ids, inside, counted)

    def stored(self, rows: IntArray, cols: IntArray) -> tuple[NDArray[Any], BoolArray]:
        """The values in the file at some crossings, (k,), and which of them it calls no data; those outside left out.

        Raises:
            DatasetError: when the file holds no values of this kind.
            ImageReadError: when the file is damaged.
        """
        mask = self._get()
        place = self._place.positions(rows, cols)
        inside = _inside(place, mask.size)
        if not inside.any():
            return np.empty(0, mask.dtype), np.empty(0, np.bool_)
        values, lacking = self._stored(mask, place, _around(place, mask.size))
        return values[inside], np.zeros(int(inside.sum()), np.bool_) if lacking is None else lacking[inside]

    def _stored(self, mask: ImageReader, place: Positions, window: Window) -> tuple[NDArray[Any], BoolArray | None]:
        """Values (n, m), and which of them the mask calls no data, where it may."""
        picked = _picked(place, window)
        pixels = mask.read(window)[(slice(None), *picked)]
        if self.meaning.in_colours and self.colours is not None:
            pixels = np.moveaxis(self.colours[pixels[0]], -1, 0)
        values = self.meaning.values(pixels, mask.location)
        return values, ~mask.valid(window)[picked] if mask.masked else None

    def _checked(
        self, values: NDArray[Any], ids: NDArray[np.int16], inside: BoolArray, counted: BoolArray
    ) -> LabelArray:
        wrong = (ids == NO_CLASS) & inside
        if wrong.any() and (wrong & counted).any():
            raise self.meaning.refusal(values, wrong & counted, self.location)
        found = ids.astype(np.uint8)
        # What stands where nothing counts need not be a class.
        found[wrong | ~inside] = self.membership.ignore_index
        return found

    def _kept(self, values: NDArray[Any], ids: NDArray[np.int16]) -> BoolArray:
        """Which values count even where the mask says that they are no data."""
        return self.meaning.names(values) if self._use_nodata else ids != NO_CLASS


def _inside(place: Positions, size: Size) -> BoolArray:
    rows, cols = place
    inside: BoolArray = ((rows >= 0) & (rows < size.height)) & ((cols >= 0) & (cols < size.width))
    return inside


def _around(place: Positions, size: Size) -> Window:
    """The window of the mask that holds the positions inside it."""
    rows, cols = place
    rows, cols = rows[(rows >= 0) & (rows < size.height)], cols[(cols >= 0) & (cols < size.width)]
    top, left = int(rows.min()), int(cols.min())
    return Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)


def _picked(place: Positions, window: Window) -> tuple[Any, Any]:
    """The index of the positions in an array of the window; those outside it take its nearest pixel."""
    rows = (place.rows - window.top).clip(0, window.height - 1)
    cols = (place.cols - window.left).clip(0, window.width - 1)
    if rows.shape[1] == 1 and cols.shape[0] == 1 and _runs(rows) and _runs(cols):
        return slice(None), slice(None)  # a view instead of a copy: the usual case
    return rows, cols


def _runs(positions: IntArray) -> bool:
    """Whether these are all the numbers from the first to the last."""
    flat = positions.ravel()
    return bool(flat[-1] - flat[0] + 1 == len(flat) and (len(flat) == 1 or (np.diff(flat) == 1).all()))
