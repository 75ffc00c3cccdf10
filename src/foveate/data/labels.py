"""Labels: class ids read from the mask of an image, never blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foveate.data.area.area import Area
from foveate.data.readers.base import ImageReader
from foveate.data.readers.pyramid import STRIP_BYTES
from foveate.errors import DatasetError
from foveate.geometry import Size, Window, ceil_div
from foveate.types import LabelArray

_TABLE_LENGTH = 1 << 16
_NOT_ALLOWED = -1


class LabelReader:
    """Reads class ids from a mask, through any image reader.

    Args:
        reader: the mask; closed with this reader.
        classes: number of classes; ids are 0 to `classes - 1`.
        ignore_index: id of what is not counted, also what lies outside the image.
        label_map: value in the file -> class id or `ignore_index`. When given, other values than its keys and
            `ignore_index` are errors.
        area: labels outside do not count; None for everything.
        closing: called when this reader is closed, with what the area reads from.

    Raises:
        DatasetError: when the mask has several bands or no integers.
    """

    def __init__(
        self,
        reader: ImageReader,
        classes: int,
        ignore_index: int = 255,
        label_map: Mapping[int, int] | None = None,
        *,
        area: Area | None = None,
        closing: Callable[[], None] | None = None,
    ) -> None:
        if reader.bands != 1 or reader.dtype.kind not in "bui":
            raise DatasetError(
                f"the mask {reader.location} has {reader.bands} bands of {reader.dtype}; a mask is one band of class "
                f"ids"
            )
        self._reader, self._ignore = reader, ignore_index
        self._area, self._closing = None if area is None or area.is_everything else area, closing
        self._table = _table(classes, ignore_index, label_map)
        self.path, self.location, self.size = reader.path, reader.location, reader.size

    def read(self, window: Window, size: Size | None = None) -> LabelArray:
        """Class ids of a window, each the one at the centre of its pixel; outside the image `ignore_index`.

        Args:
            window: level-0 pixels; may reach outside.
            size: height and width of the result; the window's own when None.

        Returns:
            (height, width), uint8.

        Raises:
            DatasetError: naming a value in the file that is not allowed.
            ImageReadError: when the file is damaged.
        """
        out = size or window.size
        result = np.full((out.height, out.width), self._ignore, np.uint8)
        if out == window.size:
            return self._read_into(result, window)
        rows, row_places = _centres(window.top, window.height, out.height, self.size.height)
        cols, col_places = _centres(window.left, window.width, out.width, self.size.width)
        if not rows.size or not cols.size:
            return result
        width = int(cols[-1]) - int(cols[0]) + 1
        for part in _strips(rows, width):
            top = int(rows[part][0])
            area = Window(top, int(cols[0]), int(rows[part][-1]) - top + 1, width)
            picked = np.ix_(rows[part] - top, cols - cols[0])
            result[np.ix_(row_places[part], col_places)] = self._read_ids(area, picked)
        return result

    def _read_into(self, result: LabelArray, window: Window) -> LabelArray:
        """Nothing to pick: the part inside the image is read as it is."""
        area = window.intersection(Window.of(self.size))
        if area is not None:
            result[area.within(window)] = self._read_ids(area, np.s_[:, :])
        return result

    def _read_ids(self, window: Window, picked: Any) -> NDArray[Any]:
        """The ids of some pixels of a window inside the image; those outside the area do not count."""
        values = self._reader.read(window)[0][picked]
        if self._area is None:
            return self._ids(values)
        inside = self._area.part(window).inside[picked]
        # What stands where nothing counts need not be a class.
        return np.where(inside, self._ids(np.where(inside, values, self._ignore)), self._ignore)

    def _ids(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype.itemsize > 1 and (values.min() < 0 or values.max() >= _TABLE_LENGTH):
            self._refuse(int(values.min() if values.min() < 0 else values.max()))
        ids = self._table[values.astype(np.intp)]
        if (ids == _NOT_ALLOWED).any():
            self._refuse(int(values[ids == _NOT_ALLOWED][0]))
        return ids

    def _refuse(self, value: int) -> None:
        allowed = np.flatnonzero(self._table != _NOT_ALLOWED).tolist()
        shown = ", ".join(map(str, allowed[:20])) + (", ..." if len(allowed) > 20 else "")
        raise DatasetError(
            f"the mask {self.location} holds the value {value}; allowed are {shown}. Name the values of the file in "
            f"data.label_map, for example {{{value}: 1}}"
        )

    def close(self) -> None:
        """Close the mask."""
        self._reader.close()
        if self._closing is not None:
            self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _table(classes: int, ignore_index: int, label_map: Mapping[int, int] | None) -> NDArray[np.int16]:
    """Class id by value in the file."""
    table = np.full(_TABLE_LENGTH, _NOT_ALLOWED, np.int16)
    table[ignore_index] = ignore_index
    for value, label in (label_map if label_map is not None else {k: k for k in range(classes)}).items():
        if not 0 <= value < _TABLE_LENGTH:
            raise DatasetError(f"label_map names the value {value}; mask values are 0 to {_TABLE_LENGTH - 1}")
        table[value] = label
    return table


def _centres(start: int, length: int, count: int, image: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Image positions under the centres of the output pixels, and which outputs these are; inside the image only."""
    position = start + ((2 * np.arange(count) + 1) * length) // (2 * count)
    inside = np.flatnonzero((position >= 0) & (position < image))
    return position[inside], inside


def _strips(rows: NDArray[np.int64], width: int) -> Iterator[slice]:
    """Parts of the output rows whose source stays small."""
    span = (int(rows[-1]) - int(rows[0]) + 1) * width
    step = max(1, len(rows) // max(1, ceil_div(span, STRIP_BYTES)))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def check_pair(image: ImageReader, labels: LabelReader) -> None:
    """Refuse a mask of another size than its image.

    Raises:
        DatasetError: naming both files and sizes.
    """
    if image.size != labels.size:
        raise DatasetError(
            f"the image {image.location} is {image.size.height} x {image.size.width} pixels and its mask "
            f"{labels.location} {labels.size.height} x {labels.size.width}; they must be the same"
        )
