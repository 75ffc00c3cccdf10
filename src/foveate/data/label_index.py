"""What is labelled where: classes by split, the cells that hold each class, and which of them training looks at."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Self, TypeAlias, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foveate.data.area import LEFT_OUT
from foveate.data.labels import LabelReader
from foveate.data.sections import Split
from foveate.errors import DatasetError
from foveate.geometry import BoolArray, CellGrid, IntArray, LabelArray, Size, Window, ceil_div, windows_over
from foveate.membership import Membership

_T = TypeVar("_T")
Masks: TypeAlias = Sequence[Callable[[], LabelReader]]  # each opens the labels of an image
_SIDE = 512
# Of images that are not trained on no more is read: what is then found is an estimate.
MOST_PIXELS = 1 << 26
# Pixels counted at once; the counting needs some 20 bytes for each.
_BAND_PIXELS = 1 << 22
MAX_CELLS = 4096
_TRIES = 64


@dataclass(frozen=True, slots=True)
class Tally:
    """Pixels of some labels."""

    counts: IntArray  # (classes,) that count
    ignored: int  # labelled `ignore_index`, or not at all
    left_out: IntArray  # (causes, classes) that are of a class and do not count, by the causes of `LEFT_OUT`

    @classmethod
    def none(cls, classes: int) -> Self:
        """No pixel at all."""
        return cls(np.zeros(classes, np.int64), 0, np.zeros((len(LEFT_OUT), classes), np.int64))

    @classmethod
    def of(cls, ids: LabelArray, left_out: NDArray[np.uint8], classes: int, membership: Membership) -> Self:
        """The pixels of a part of the labels, see `LabelReader.parts`."""
        found = membership.counts(ids, left_out, len(LEFT_OUT) + 1, classes)
        return cls(found[0, :classes], int(found[:, classes].sum()), found[1:, :classes])

    def __add__(self, other: Self) -> "Tally":
        return Tally(self.counts + other.counts, self.ignored + other.ignored, self.left_out + other.left_out)

    def scaled(self, factor: float) -> "Tally":
        """As many times as many pixels."""
        counts, left_out = (np.rint(part * factor).astype(np.int64) for part in (self.counts, self.left_out))
        return Tally(counts, round(self.ignored * factor), left_out)


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """The labels of a split."""

    split: Split  # "train", "val" or "test"
    images: int  # how many it has
    tally: Tally  # its pixels
    estimated: bool = False  # whether they were counted in parts of the images only

    @classmethod
    def of_training(cls, images: Sequence["ImageLabels"]) -> Self:
        """What was indexed of the images that are trained on."""
        return cls("train", len(images), sum((image.tally for image in images[1:]), images[0].tally))


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The labels of a data set."""

    names: tuple[str, ...]  # of the classes
    splits: tuple[SplitLabels, ...]  # those that have images; training first

    def absent(self, split: Split) -> list[int]:
        """The ids of the classes without a counted pixel in a split; none of a split without images."""
        (counts,) = [part.tally.counts for part in self.splits if part.split == split] or [np.ones(1, np.int64)]
        return [int(label) for label in np.flatnonzero(counts == 0)]

    def summary(self) -> str:
        """The counts in one line."""
        lines = []
        for part in self.splits:
            counts = zip((*self.names, "ignored"), (*part.tally.counts, part.tally.ignored), strict=True)
            about = "about, " if part.estimated else ""
            lines.append(f"{part.split}: {about}" + ", ".join(f"{name} {count:,}" for name, count in counts))
        return f"Counted pixels in {'; '.join(lines)}."


def count_split(split: Split, masks: Masks, classes: int) -> SplitLabels:
    """Count the labels of a split, which each function opens; of large ones in windows that are spread evenly."""

    def count(labels: LabelReader) -> tuple[Tally, float]:
        windows = spread_windows(labels.size, MOST_PIXELS // len(masks))
        tallies = (Tally.of(*labels.parts(window), classes, labels.membership) for window in windows)
        found = sum(tallies, Tally.none(classes))
        times = labels.size.pixels / sum(window.size.pixels for window in windows)
        return found.scaled(times), times

    counted = list(read_each(masks, count))
    total = sum((tally for tally, _ in counted), Tally.none(classes))
    return SplitLabels(split, len(masks), total, any(times > 1 for _, times in counted))


def read_each(masks: Masks, work: Callable[[LabelReader], _T]) -> Iterator[_T]:
    """Open, read and close each of some labels in a thread, several at a time; what came of it, in order."""

    def one(open_labels: Callable[[], LabelReader]) -> _T:
        with open_labels() as labels:
            return work(labels)

    executor = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        yield from executor.map(one, masks)
    finally:
        # After an error those not yet begun are not read at all.
        executor.shutdown(cancel_futures=True)


def spread_windows(size: Size, pixels: int) -> list[Window]:
    """Disjoint windows of an image, evenly spread, that hold about so many pixels; all of it where it has no more."""
    tops, lefts = range(0, size.height, _SIDE), range(0, size.width, _SIDE)
    step = max(1, ceil_div(len(tops) * len(lefts) * _SIDE**2, max(pixels, _SIDE**2)))
    # Every so many-th along a line that goes on in the next row, unless rows would always be met in the same columns.
    step += step > 1 and len(lefts) % step == 0
    return list(islice(windows_over(size, _SIDE, _SIDE), 0, None, step))


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """What the mask of one image holds."""

    grid: CellGrid
    tally: Tally  # its pixels by class
    cells: tuple[IntArray, ...]  # per class (n, 2) rows and columns of cells that hold it, at most `MAX_CELLS`
    labelled: NDArray[np.uint8]  # one bit per cell in row order, packed: whether any of its pixels counts
    labelled_cells: int  # number of such cells

    def is_labelled(self, row: int, col: int) -> bool:
        """Whether any pixel of the cell counts."""
        byte, bit = divmod(row * self.grid.cols + col, 8)
        return bool(self.labelled[byte] >> (7 - bit) & 1)


def index_masks(
    masks: Masks, classes: int, cell: int, *, progress: Callable[[float], None] | None = None
) -> list[ImageLabels]:
    """Read all masks once, several at a time, each opened, read and closed in one thread.

    A cell's side in level-0 pixels is the overview's downsample; `progress` gets the share of images done.
    """
    images = []
    for image in read_each(masks, lambda labels: index_labels(labels, classes, cell)):
        images.append(image)
        if progress:
            progress(len(images) / len(masks))
    return images


def index_labels(labels: LabelReader, classes: int, cell: int, max_cells: int = MAX_CELLS) -> ImageLabels:
    """Count the classes of one mask and find the cells that hold them, band by band of cell rows.

    Of more than `max_cells` cells of a class those of lowest hash are kept: an even, repeatable sample.
    """
    grid = CellGrid(labels.size, cell)
    kept = [np.empty(0, np.int64)] * classes
    tally = Tally.none(classes)
    labelled = []
    step = max(1, _BAND_PIXELS // (cell * labels.size.width))
    for row in range(0, grid.rows, step):
        counts, counted, part = _count(labels, grid, row, min(row + step, grid.rows), classes)
        tally += part
        labelled.append(counted)
        found = (np.flatnonzero(column) + row * grid.cols for column in counts.T)
        kept = [_thinned(np.concatenate(both), max_cells) for both in zip(kept, found, strict=True)]
    valid = np.concatenate(labelled)
    cells = tuple(np.stack(np.divmod(np.sort(sample), grid.cols), axis=1) for sample in kept)
    return ImageLabels(grid, tally, cells, np.packbits(valid), int(valid.sum()))


def _count(
    labels: LabelReader, grid: CellGrid, first: int, last: int, classes: int
) -> tuple[IntArray, BoolArray, Tally]:
    """Of cell rows [first, last): pixels per cell and class (cells, classes), cells where any counts, and a tally."""
    top, bottom = first * grid.cell, min(last * grid.cell, grid.image.height)
    ids, left_out = labels.parts(Window(top, 0, bottom - top, grid.image.width))
    tally = Tally.of(ids, left_out, classes, labels.membership)
    ids[left_out > 0] = labels.membership.ignore_index
    cell_rows, cell_cols = np.arange(bottom - top) // grid.cell, np.arange(grid.image.width) // grid.cell
    cells = cell_rows[:, None] * grid.cols + cell_cols
    counts = labels.membership.counts(ids, cells, (last - first) * grid.cols, classes)
    pixels = np.bincount(cell_rows)[:, None] * np.bincount(cell_cols)
    return counts[:, :classes], counts[:, classes] < pixels.ravel(), tally


def _thinned(cells: IntArray, limit: int) -> IntArray:
    return cells if len(cells) <= limit else cells[np.argpartition(_hash(cells), limit)[:limit]]


def _hash(cells: IntArray) -> NDArray[np.uint64]:
    """Source: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    z = cells.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class CellSampler:
    """Draws an image and cells in it, partly by area and partly by class; a pure function of the generator.

    With probability `balance` the image is one that holds a class drawn first, else it is drawn by its labelled area.
    Then each cell is, again with probability `balance`, one that holds a class drawn among those of the image, else
    any cell with a label. Classes are drawn by their weights; by equal ones when None.

    Raises:
        DatasetError: when no mask holds a label that counts.
    """

    def __init__(
        self, images: Sequence[ImageLabels], balance: float, class_weights: Sequence[float] | None = None
    ) -> None:
        self._images, self._balance = images, balance
        area = np.array([image.labelled_cells for image in images], np.float64)
        if not area.sum():
            raise DatasetError(
                "there is nothing to learn: no pixel of any training mask has a label that counts, or there is no mask"
            )
        self._area = area / area.sum()
        classes = len(images[0].cells)
        weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)
        # (images, classes): the weight of a class where the image holds it.
        self._weights = np.array([[len(cells) > 0 for cells in image.cells] for image in images]) * weights

    def draw(self, rng: Generator, count: int) -> tuple[int, IntArray]:
        """The index of an image, and (count, 2) rows and columns of cells of it, which may repeat."""
        image = self._draw_image(rng)
        return image, np.array([self._draw_cell(rng, image) for _ in range(count)], np.int64).reshape(count, 2)

    def grid(self, image: int) -> CellGrid:
        """The cells of an image."""
        return self._images[image].grid

    def draw_window(self, rng: Generator, image: int, inside: Window | None) -> Window:
        """A cell of an image, inside a window that meets it or anywhere, level-0 pixels.

        By class, as often as `balance` says, where it holds one.
        """
        return self._images[image].grid.window(*map(int, self._draw_cell(rng, image, inside)))

    def _draw_image(self, rng: Generator) -> int:
        by_class = rng.random() < self._balance
        weights = self._weights.max(axis=0)
        if not by_class or not weights.any():
            return int(rng.choice(len(self._area), p=self._area))
        label = _choose(rng, weights)
        return int(rng.choice(np.flatnonzero(self._weights[:, label])))

    def _draw_cell(self, rng: Generator, image: int, inside: Window | None = None) -> IntArray:
        by_class = rng.random() < self._balance
        grid, cells, weights = self._images[image].grid, self._images[image].cells, self._weights[image]
        low, high = np.zeros(2, np.int64), np.array([grid.rows, grid.cols]) - 1
        if inside is not None:
            low = np.maximum(low, np.array([inside.top, inside.left]) // grid.cell)
            high = np.minimum(high, (np.array([inside.bottom, inside.right]) - 1) // grid.cell)
            cells = tuple(some[((some >= low) & (some <= high)).all(axis=1)] for some in cells) if by_class else cells
            weights = weights * [len(some) > 0 for some in cells]
        if by_class and weights.any():
            return _pick(rng, cells[_choose(rng, weights)])
        if inside is None:
            return _any_labelled(rng, self._images[image])
        return np.array([rng.integers(*limits, endpoint=True) for limits in zip(low, high, strict=True)])


def class_weights(names: Sequence[str], weights: Mapping[str, float] | None) -> list[float]:
    """Weights in the order of the classes; 1 for a class that is not named."""
    return [(weights or {}).get(name, 1.0) for name in names]


def _choose(rng: Generator, weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _any_labelled(rng: Generator, image: ImageLabels) -> IntArray:
    """A labelled cell, by drawing until one is found; where they are rare, one from the lists of the classes."""
    for _ in range(_TRIES):
        row, col = int(rng.integers(image.grid.rows)), int(rng.integers(image.grid.cols))
        if image.is_labelled(row, col):
            return np.array([row, col])
    return _pick(rng, np.concatenate(image.cells))


def _pick(rng: Generator, cells: IntArray) -> IntArray:
    cell: IntArray = cells[rng.integers(len(cells))]
    return cell
