"""`LabelIndex`: where each class is, found once before training by streaming through the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.data.class_table import Tally, read_each
from foveate.data.labels import LabelReader
from foveate.geometry import CellGrid, Window
from foveate.types import BoolArray, IntArray

# Pixels counted at once; the counting needs some 20 bytes for each.
_BAND_PIXELS = 1 << 22
MAX_CELLS = 4096


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """What the mask of one image holds.

    Attributes:
        grid: the image's cells.
        tally: its pixels by class.
        cells: per class an (n, 2) array of (row, col) of cells that hold it, at most `max_cells` of them.
        labelled: one bit per cell in row order, packed: whether any of its pixels counts.
        labelled_cells: number of such cells.
    """

    grid: CellGrid
    tally: Tally
    cells: tuple[IntArray, ...]
    labelled: NDArray[np.uint8]
    labelled_cells: int

    @property
    def counts(self) -> IntArray:
        """(classes,) pixels of each class that count."""
        return self.tally.counts

    @property
    def ignored(self) -> int:
        """Pixels labelled `ignore_index`."""
        return self.tally.ignored

    def is_labelled(self, row: int, col: int) -> bool:
        """Whether any pixel of the cell counts."""
        byte, bit = divmod(row * self.grid.cols + col, 8)
        return bool(self.labelled[byte] >> (7 - bit) & 1)


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """The labels of all images of a split, in the order of its samples."""

    images: tuple[ImageLabels, ...]

    @property
    def pixel_counts(self) -> IntArray:
        """(classes,) pixels of each class over all images."""
        return self.tally.counts

    @property
    def tally(self) -> Tally:
        """The pixels of all images."""
        return sum((image.tally for image in self.images[1:]), self.images[0].tally)

    @classmethod
    def build(
        cls,
        masks: Sequence[Callable[[], LabelReader]],
        classes: int,
        cell: int,
        *,
        max_cells: int = MAX_CELLS,
        progress: Callable[[float], None] | None = None,
    ) -> LabelIndex:
        """Read all masks once, several at a time.

        Args:
            masks: one function per image that opens its mask; each is opened, read and closed in one thread.
            classes: number of classes.
            cell: side of a cell in level-0 pixels: the overview's downsample.
            max_cells: cells kept per image and class; more are thinned out evenly, the same ones every time.
            progress: called with the share of images done, 0 to 1.

        Raises:
            DatasetError: when a mask holds a value that is not allowed.
            ImageReadError: when a mask is damaged.
        """
        images = []
        for image in read_each(masks, lambda labels: index_labels(labels, classes, cell, max_cells)):
            images.append(image)
            if progress:
                progress(len(images) / len(masks))
        return cls(tuple(images))


def index_labels(labels: LabelReader, classes: int, cell: int, max_cells: int = MAX_CELLS) -> ImageLabels:
    """Count the classes of one mask and find the cells that hold them, band by band of cell rows.

    Raises:
        DatasetError: when the mask holds a value that is not allowed.
    """
    grid = CellGrid(labels.size, cell)
    kept = [_CellSample(max_cells) for _ in range(classes)]
    tally = Tally.none(classes)
    labelled = []
    step = max(1, _BAND_PIXELS // (cell * labels.size.width))
    for row in range(0, grid.rows, step):
        counts, counted, part = _count(labels, grid, row, min(row + step, grid.rows), classes)
        tally += part
        labelled.append(counted)
        for sample, column in zip(kept, counts.T, strict=True):
            sample.add(np.flatnonzero(column) + row * grid.cols)
    valid = np.concatenate(labelled)
    cells = tuple(np.stack(np.divmod(sample.result(), grid.cols), axis=1) for sample in kept)
    return ImageLabels(grid, tally, cells, np.packbits(valid), int(valid.sum()))


def _count(
    labels: LabelReader, grid: CellGrid, first: int, last: int, classes: int
) -> tuple[IntArray, BoolArray, Tally]:
    """Of cell rows [first, last): pixels per cell and class (cells, classes), cells where any counts, and a tally."""
    top, bottom = first * grid.cell, min(last * grid.cell, grid.image.height)
    ids, why = labels.parts(Window(top, 0, bottom - top, grid.image.width))
    tally = Tally.of(ids, why, classes, labels.membership)
    if why is not None:
        ids[why > 0] = labels.membership.ignore_index
    cell_rows, cell_cols = np.arange(bottom - top) // grid.cell, np.arange(grid.image.width) // grid.cell
    cells = cell_rows[:, None] * grid.cols + cell_cols
    counts = labels.membership.counts(ids, cells, (last - first) * grid.cols, classes)
    pixels = np.bincount(cell_rows)[:, None] * np.bincount(cell_cols)
    return counts[:, :classes], counts[:, classes] < pixels.ravel(), tally


class _CellSample:
    """Keeps the cells of lowest hash: an even, repeatable sample that does not depend on the bands."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cells = np.empty(0, np.int64)

    def add(self, cells: IntArray) -> None:
        self._cells = np.concatenate([self._cells, cells])
        if len(self._cells) > 2 * self._limit:
            self._trim()

    def result(self) -> IntArray:
        self._trim()
        return np.sort(self._cells)

    def _trim(self) -> None:
        if len(self._cells) > self._limit:
            order = np.argpartition(_hash(self._cells), self._limit)
            self._cells = self._cells[order[: self._limit]]


def _hash(cells: IntArray) -> NDArray[np.uint64]:
    """Source: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    z = cells.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
