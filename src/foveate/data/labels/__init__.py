"""Labels: class ids on the grid of an image, whatever they are stored as, never blended. Start at `open_source`."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from foveate.data.area import Area, Polygons
from foveate.data.config import DataConfig
from foveate.data.labels import raster
from foveate.data.labels.raster import OverlappingLabels, RasterLabels
from foveate.data.labels.shapes import VECTORS
from foveate.data.labels.table import ColourTable, LabelTable, Meaning
from foveate.data.labels.vector import VectorLabels
from foveate.data.readers import ImageReader, open_image
from foveate.data.readers.pyramid import strips
from foveate.errors import DatasetError
from foveate.files import Closing
from foveate.geometry import ByteArray, IntArray, LabelArray, Size, Window
from foveate.membership import Membership

__all__ = ["ColourTable", "LabelReader", "LabelSource", "LabelTable", "RasterLabels", "class_map", "open_source"]


# The labels of one image, on its grid at the working resolution. Each has `ids`, the `location` that messages call it,
# the image's `size`, the `membership` by which labels are read, the masks (`rasters`) that they are read from, and
# `notes`: what was taken for granted, or left out.
LabelSource: TypeAlias = RasterLabels | OverlappingLabels | VectorLabels


class LabelReader(Closing):
    """Reads class ids of windows of an image.

    Args:
        source: the labels; also an attribute.
        area: labels outside do not count; None for everything.
        closing: called when this reader is closed, with what the source and the area read from.
    """

    def __init__(
        self, source: LabelSource, *, area: Area | None = None, closing: Callable[[], None] | None = None
    ) -> None:
        self.source, self._closing = source, closing
        self._area = None if area is None or area.is_everything else area
        self.membership, self.location = source.membership, source.location
        self.size, self.notes = source.size, source.notes

    def read(self, window: Window, size: Size | None = None) -> LabelArray:
        """Labels of a window, each the one at the centre of its pixel; outside the image `ignore_index`.

        Args:
            window: level-0 pixels; may reach outside.
            size: height and width of the result; the window's own when None.

        Returns:
            (height, width), uint8 class ids, or int32 sets of overlapping classes, see `Membership`.

        Raises:
            DatasetError: naming a value in the file that is not allowed.
            ImageReadError: when the file is damaged.
        """
        out = size or window.size
        result = np.full((out.height, out.width), self.membership.ignore_index, self.membership.dtype)
        rows, cols = window.centres(out)
        row_places, col_places = (
            np.flatnonzero((position >= 0) & (position < length))
            for position, length in ((rows, self.size.height), (cols, self.size.width))
        )
        rows, cols = rows[row_places], cols[col_places]
        if not rows.size or not cols.size:
            return result
        place = slice(int(col_places[0]), int(col_places[-1]) + 1)
        for part in strips(rows, int(cols[-1]) - int(cols[0]) + 1):
            first = int(row_places[part][0])
            labels, left_out = self._at(rows[part], cols)
            labels[left_out > 0] = self.membership.ignore_index
            result[first : first + len(rows[part]), place] = labels
        return result

    def parts(self, window: Window) -> tuple[LabelArray, ByteArray]:
        """The labels (h, w) of a window inside the image, also those that do not count.

        The second (h, w) is 0 where a label counts, else one more than the place of the cause in `LEFT_OUT`.
        """
        return self._at(np.arange(window.top, window.bottom), np.arange(window.left, window.right))

    def _at(self, rows: IntArray, cols: IntArray) -> tuple[LabelArray, ByteArray]:
        left_out = np.zeros((len(rows), len(cols)), np.uint8)
        if self._area is not None:
            top, left = int(rows[0]), int(cols[0])
            window = Window(top, left, int(rows[-1]) - top + 1, int(cols[-1]) - left + 1)
            left_out = self._area.left_out(window)[np.ix_(rows - top, cols - left)]
        return self.source.ids(rows, cols, left_out == 0), left_out

    @property
    def region(self) -> Polygons | None:
        """The region outside which nothing counts, None for none."""
        return None if self._area is None else self._area.region

    def close(self) -> None:
        """Close what the labels are read from."""
        if self._closing is not None:
            self._closing()


def open_source(
    place: Path, image: ImageReader, config: DataConfig, mask: Callable[[Path], ImageReader]
) -> LabelSource:
    """The labels in a file, on the grid of an image; nothing of it is kept open but by `mask`.

    Of the image, at the working resolution, only its size, place and pixel size are asked for. `mask` opens a mask, or
    gives an open one; it is asked again for every read, so that a cache may close it.

    Raises:
        DatasetError: when the file cannot hold the labels of this image.
    """
    if place.suffix.lower() in VECTORS:
        return VectorLabels(place, image, config)
    if config.overlapping:
        return raster.overlapping_source(place, image, config, mask)
    if raster.CLASS in str(place):
        raise DatasetError(f"{place} names one mask for each class, which takes data.overlapping=true")
    meaning: Meaning
    if config.mask_colours is None:
        meaning = LabelTable(len(config.classes), config.mask_values, rounded=config.round_labels)
    else:
        meaning = ColourTable(config.mask_colours, rounded=config.round_labels)
    return raster.mask_source(place, image, meaning, config, mask)


def class_map(path: Path, classes: int, membership: Membership) -> LabelReader:
    """A class map that prediction or evaluation wrote, read as labels; closing it closes the file."""
    reader = open_image(path)
    source: LabelSource = RasterLabels(reader, LabelTable(classes))
    if membership.overlapping:
        parts = [RasterLabels(reader, raster.YesNoTable(classes, number)) for number in range(classes)]
        source = OverlappingLabels(parts, str(path))
    return LabelReader(source, closing=reader.close)
