"""Which image, which of its cells and which windows around them a training item looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from foveate.data.label_index import ImageLabels, LabelIndex
from foveate.errors import DatasetError
from foveate.geometry import CellGrid, Size, Window
from foveate.patches.scales import ScaleSet
from foveate.types import IntArray

_TRIES = 64
# From a window to a cell in it, or from None to one anywhere in the image; windows in level-0 pixels.
DrawCell: TypeAlias = Callable[[Window | None], Window]


class CellSampler:
    """Draws an image and cells in it, partly by area and partly by class; a pure function of the generator.

    With probability `balance` the image is one that holds a class drawn first, else it is drawn by its labelled area.
    Then each cell is, again with probability `balance`, one that holds a class drawn among those of the image, else
    any cell with a label. Classes are drawn by their weights; by equal ones when None.

    Raises:
        DatasetError: when no mask holds a label that counts.
    """

    def __init__(self, index: LabelIndex, balance: float, class_weights: Sequence[float] | None = None) -> None:
        self._images, self._balance = index.images, balance
        area = np.array([image.labelled_cells for image in index.images], np.float64)
        if not area.sum():
            raise DatasetError(
                "there is nothing to learn: no pixel of any training mask has a label that counts, or there is no mask"
            )
        self._area = area / area.sum()
        classes = len(index.images[0].cells)
        weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)
        # (images, classes): the weight of a class where the image holds it.
        self._weights = np.array([[len(cells) > 0 for cells in image.cells] for image in index.images]) * weights

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


class Planned(NamedTuple):
    """A window to be read."""

    scale: int  # index of its field of view
    window: Window  # level-0 pixels
    parent: int = -1  # place in the location of the window that it lies in, whose look gives it context; -1 for none


class Nesting(NamedTuple):
    """How many windows a location has."""

    closer: int  # of each look but the widest, inside the wide window
    elsewhere: int = 0  # further wide windows, without closer ones, from all of the image


def drawn_windows(
    rng: Generator, cell: Window, scales: ScaleSet, nesting: Nesting, image: Size, draw: DrawCell
) -> list[Planned]:
    """Windows around a cell: the wide one anywhere around the closest, which is centred on the cell.

    The other closest windows are centred on cells drawn inside the wide window. Each has windows of its own between. A
    wide window reaches beyond the image's border by a quarter at most, where that can be.

    Returns:
        The wide window, those elsewhere, then look by look the closer ones.
    """
    widest = len(scales) - 1
    side = scales.fields_of_view[widest]
    first = scales.window(cell, 0)
    wide = _around(rng, first, side, image)
    elsewhere = [_around(rng, scales.window(draw(None), 0), side, image) for _ in range(nesting.elsewhere)]
    closest = [first, *(_pushed(scales.window(draw(wide), 0), wide) for _ in range(nesting.closer - 1))]
    planned = [Planned(widest, window) for window in (wide, *elsewhere)]
    parents = [0] * nesting.closer
    for scale in reversed(range(widest)):
        view = scales.fields_of_view[scale]
        windows = [_between(rng, one, view, planned[p].window) for one, p in zip(closest, parents, strict=True)]
        begin = len(planned)
        planned += [Planned(scale, window, p) for window, p in zip(windows, parents, strict=True)]
        parents = list(range(begin, len(planned)))
    return planned


def windows_as_predicted(cell: Window, scales: ScaleSet) -> list[Planned]:
    """A window of every look, widest first, each in the one before: those that prediction without margins looks at.

    The closest one is centred on the cell, level-0 pixels.
    """
    closest = scales.window(cell, 0)
    planned: list[Planned] = []
    for scale in reversed(range(len(scales))):
        side = scales.fields_of_view[scale]
        top, left = (start + scales.target // 2 for start in (closest.top, closest.left))
        tile = Window(top // side * side, left // side * side, side, side)
        window = _shifted(tile, closest)
        if planned:
            window = _shifted(_pushed(window, planned[-1].window), closest)
        planned.append(Planned(scale, window, len(planned) - 1))
    return planned


def nesting_of(planned: Sequence[Planned]) -> Tensor:
    """Where windows lie in their parents, (M, 4) int64: place of the parent, top, left, and side left over.

    The first is -1, and the others 0, for a window without a parent.
    """
    rows = []
    for one in planned:
        if one.parent < 0:
            rows.append((-1, 0, 0, 0))
            continue
        outer = planned[one.parent].window
        slack = outer.height - one.window.height
        rows.append((one.parent, one.window.top - outer.top, one.window.left - outer.left, slack))
    return torch.tensor(rows)


def moved_nesting(nesting: Tensor, vertical: bool, horizontal: bool, turns: int) -> Tensor:
    """The nesting (M, 4) after every window was mirrored, then turned counter-clockwise by quarters, in itself."""
    parent, top, left, slack = nesting.unbind(dim=1)
    top = slack - top if vertical else top
    left = slack - left if horizontal else left
    for _ in range(turns % 4):
        top, left = slack - left, top
    return torch.stack([parent, top, left, slack], dim=1)


def _around(rng: Generator, inner: Window, side: int, image: Size) -> Window:
    """A window of this side anywhere around another."""
    starts = []
    for start, length, whole in ((inner.top, inner.height, image.height), (inner.left, inner.width, image.width)):
        low, high = start + length - side, start
        inside = max(low, -(side // 4)), min(high, whole - side + side // 4)
        starts.append(_integer(rng, *(inside if inside[0] <= inside[1] else (low, high))))
    return Window(starts[0], starts[1], side, side)


def _between(rng: Generator, inner: Window, side: int, outer: Window) -> Window:
    """A window of this side anywhere around one and inside another."""
    top = _integer(rng, max(outer.top, inner.bottom - side), min(outer.bottom - side, inner.top))
    left = _integer(rng, max(outer.left, inner.right - side), min(outer.right - side, inner.left))
    return Window(top, left, side, side)


def _pushed(window: Window, outer: Window) -> Window:
    """The window as far into another as it needs to lie inside."""
    top = min(max(window.top, outer.top), outer.bottom - window.height)
    left = min(max(window.left, outer.left), outer.right - window.width)
    return Window(top, left, window.height, window.width)


def _shifted(window: Window, inner: Window) -> Window:
    """The window as far moved as it needs to hold another."""
    top = min(max(window.top, inner.bottom - window.height), inner.top)
    left = min(max(window.left, inner.right - window.width), inner.left)
    return Window(top, left, window.height, window.width)


def _integer(rng: Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high, endpoint=True))
