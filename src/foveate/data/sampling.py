"""Which image and which of its cells a training item looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.random import Generator

from foveate.data.label_index import ImageLabels, LabelIndex
from foveate.errors import DatasetError
from foveate.geometry import CellGrid, Window
from foveate.types import IntArray

_TRIES = 64


class CellSampler:
    """Draws an image and cells in it, partly by area and partly by class; a pure function of the generator.

    With probability `balance` the image is one that holds a class drawn first, else it is drawn by its labelled area.
    Then each cell is, again with probability `balance`, one that holds a class drawn among those of the image, else
    any cell with a label.

    Args:
        index: what the masks hold.
        balance: share of draws by class, 0 to 1.
        class_weights: weight of each class in draws by class; equal when None.

    Raises:
        DatasetError: when no mask holds a label that counts.
    """

    def __init__(self, index: LabelIndex, balance: float, class_weights: Sequence[float] | None = None) -> None:
        self._images, self._balance = index.images, balance
        area = np.array([image.labelled_cells for image in index.images], np.float64)
        if not area.sum():
            raise DatasetError(
                "there is nothing to learn: every pixel of every training mask is ignore_index, or there is no mask"
            )
        self._area = area / area.sum()
        classes = len(index.images[0].cells)
        weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)
        # (images, classes): the weight of a class where the image holds it.
        self._weights = np.array([[len(cells) > 0 for cells in image.cells] for image in index.images]) * weights

    def draw(self, rng: Generator, count: int) -> tuple[int, IntArray]:
        """An image and cells of it.

        Args:
            rng: the only source of randomness.
            count: number of cells K.

        Returns:
            The image's index and (K, 2) rows and columns; cells may repeat.
        """
        image = self._draw_image(rng)
        return image, np.array([self._draw_cell(rng, image) for _ in range(count)], np.int64).reshape(count, 2)

    def grid(self, image: int) -> CellGrid:
        """The cells of an image."""
        return self._images[image].grid

    def draw_window(self, rng: Generator, image: int, inside: Window | None) -> Window:
        """A cell of an image, inside a window or anywhere; by class, as often as `balance` says, where it holds one.

        Args:
            rng: the only source of randomness.
            image: its index.
            inside: level-0 pixels, meeting the image; None for all of it.

        Returns:
            The cell, level-0 pixels.
        """
        grid = self._images[image].grid
        if inside is None:
            return grid.window(*map(int, self._draw_cell(rng, image)))
        by_class = rng.random() < self._balance
        first_row, first_col = max(0, inside.top // grid.cell), max(0, inside.left // grid.cell)
        last_row = min(grid.rows - 1, (inside.bottom - 1) // grid.cell)
        last_col = min(grid.cols - 1, (inside.right - 1) // grid.cell)
        if by_class:
            low, high = np.array([first_row, first_col]), np.array([last_row, last_col])
            found = [cells[((cells >= low) & (cells <= high)).all(axis=1)] for cells in self._images[image].cells]
            weights = self._weights[image] * [len(cells) > 0 for cells in found]
            if weights.any():
                return grid.window(*map(int, _pick(rng, found[_choose(rng, weights)])))
        row, col = rng.integers(first_row, last_row, endpoint=True), rng.integers(first_col, last_col, endpoint=True)
        return grid.window(int(row), int(col))

    def _draw_image(self, rng: Generator) -> int:
        by_class = rng.random() < self._balance
        weights = self._weights.max(axis=0)
        if not by_class or not weights.any():
            return int(rng.choice(len(self._area), p=self._area))
        label = _choose(rng, weights)
        return int(rng.choice(np.flatnonzero(self._weights[:, label])))

    def _draw_cell(self, rng: Generator, image: int) -> IntArray:
        by_class = rng.random() < self._balance
        weights = self._weights[image]
        if not by_class or not weights.any():
            return _any_labelled(rng, self._images[image])
        cells = self._images[image].cells[_choose(rng, weights)]
        return _pick(rng, cells)


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
